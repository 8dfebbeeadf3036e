"""One cluster for the whole run: started, given a hub and the chart, taken down whatever happens."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import CHART, HUB, HUB_URL, LAB, NAMESPACE, PATIENCE, ROOT, Cluster, run, secret

TOKEN = "hf_lab_allowed"
OTHER_TOKEN = "hf_lab_stranger"
# Sparse: stated, listed and read in places, never stored whole.
GIANT_BYTES = 130 * 10**9
SHARDS = 26
WEIGHTS_BYTES = 24 << 20


@pytest.fixture(scope="session")
def state():
    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    return Path(os.environ.get("S", f"{home}/model-p2p-lab/state"))


@pytest.fixture(scope="session")
def model(state):
    """The small files of the lab's models, on disk, so that tests know the right bytes."""
    folder = state / "model"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "nested/deeper").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "lab"}\n')
    (folder / "tokenizer.json").write_text('{"version": "1.0"}\n' * 500)
    (folder / "nested/deeper/notes.txt").write_text("all that is known\n")
    seed = hashlib.sha256(b"weights").digest()
    block = b"".join(hashlib.sha256(seed + bytes([i])).digest() for i in range(128))
    with open(folder / "model.safetensors", "wb") as file:
        for index in range(WEIGHTS_BYTES // len(block)):
            file.write(index.to_bytes(8, "little") + block[8:])
    return folder


@pytest.fixture(scope="session")
def cluster(state, model):
    lab = Cluster(state)
    subprocess.run(["bash", LAB / "image.sh", "base"], check=True, timeout=300)
    archive = os.environ["MODEL_P2P_IMAGE"]
    shutil.copy(archive, state / "images/model-p2p.tar")
    with open(state / "up.log", "w") as log:
        subprocess.run(["bash", LAB / "up.sh"], check=True, timeout=300, stdout=log, stderr=log)
    hub = None
    try:
        hub = start_hub(lab, model)
        prepare(lab)
        lab.accepted = {name: dry_run(lab, name) for name in ("default", "full")}
        install(lab)
        yield lab
    finally:
        keep_logs(lab)
        if hub:
            hub.kill()
        down = subprocess.run(["bash", LAB / "down.sh"], capture_output=True, text=True, timeout=120)
        print(down.stdout)
    assert down.returncode == 0, f"the cluster left something behind: {down.stdout}{down.stderr}"


def start_hub(lab, model):
    """The hub double behind TLS with a private CA, beside the API server."""
    tls = lab.state / "hub-tls"
    shutil.rmtree(tls, ignore_errors=True)
    tls.mkdir()
    for mine, theirs in [("tls.crt", "hub.crt"), ("tls.key", "hub.key"), ("ca.crt", "ca.crt")]:
        shutil.copy(lab.state / "pki" / theirs, tls / mine)
    shards = [
        f"--sparse=acme/giant:model-{n:05}-of-{SHARDS:05}.safetensors={GIANT_BYTES // SHARDS}"
        for n in range(1, SHARDS + 1)
    ]
    repos = [f"--repo=acme/{name}={model}" for name in ("tiny", "twin", "cold", "static", "gated", "private", "moving", "late")]
    arguments = [word for pair in repos + shards for word in pair.split("=", 1)]
    command = [
        *lab._enter("init.pid"), "--", ROOT / "target/debug/testhub",
        "--listen", f"{HUB}:9443", "--cdn", f"{HUB}:9444", "--tls-dir", tls,
        *arguments, "--gated", "acme/gated", "--private", "acme/private", "--token", TOKEN,
    ]
    log = open(lab.state / "logs/hub.log", "w")
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=log, text=True)
    line = process.stdout.readline()
    assert "url" in line, f"the hub did not start: {(lab.state / 'logs/hub.log').read_text()}"
    return process


def prepare(lab):
    """What a cluster's owner has before the chart: a disk for the seed, the hub's CA, a namespace."""
    disk = lab.state / "seed"
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    os.chown(disk, 65532, 65532)
    lab.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        },
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "lab"},
         "provisioner": "kubernetes.io/no-provisioner"},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "seed-disk"},
            "spec": {
                "storageClassName": "lab",
                "capacity": {"storage": "200Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": str(disk)},
            },
        },
    )
    ca = (lab.state / "pki/ca.crt").read_text()
    lab.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub-ca"}, "data": {"ca.crt": ca}},
        namespace=NAMESPACE,
    )
    lab.apply(secret("hf-token", token=TOKEN), secret("stranger", token=OTHER_TOKEN))


def dry_run(lab, name):
    """What the API server says to every object of a value set, in a cluster that has none of them yet. The kinds of
    cert-manager and the Prometheus operator are not there."""
    values = Path(__file__).with_name("golden") / f"{name}.values.yaml"
    text = lab.helm("template", "model-p2p", CHART, "-n", NAMESPACE, "-f", values, "--set", "podMonitor.enabled=false")
    objects = sum(1 for document in yaml.safe_load_all(text) if document)
    said = lab.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", "-n", NAMESPACE, stdin=text, check=False
    )
    return objects, said


VALUES = {
    "seed": {
        "hubs": {"hf": HUB_URL},
        "caConfigMap": {"name": "hub-ca"},
        "persistence": {"storageClassName": "lab"},
        "cacheSize": "16GiB",
    },
    "node": {"cacheSize": "8GiB"},
    "logLevel": "info",
}


def install(lab, *extra):
    values = lab.state / "values.yaml"
    values.write_text(yaml.safe_dump(VALUES))
    lab.helm(
        "upgrade", "--install", "model-p2p", CHART, "-n", NAMESPACE, "-f", values, *extra,
        "--wait", "--timeout", "120s", timeout=150,
    )
    for number in (1, 2):
        wait_registered(lab, number)


def wait_registered(lab, number):
    lab.wait(
        f"csinode/labnode{number}", ".spec.drivers[0].name=csi.model-p2p.dev", timeout=PATIENCE
    )


def keep_logs(lab):
    """What a reader of a failed run wants to see."""
    out = ROOT / "target/kubernetes"
    out.mkdir(parents=True, exist_ok=True)
    for name, command in {
        "pods": ["get", "pods", "-A", "-o", "wide"],
        "events": ["get", "events", "-A"],
        "node": ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=node", "--tail=-1", "--prefix"],
        "seed": ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=seed", "--tail=-1"],
        "controller": ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller", "--tail=-1", "--all-containers"],
    }.items():
        try:
            (out / f"{name}.log").write_text(lab.kubectl(*command, check=False, timeout=30))
        except (OSError, subprocess.SubprocessError) as error:
            (out / f"{name}.log").write_text(str(error))


@pytest.fixture
def clean(cluster):
    """Takes away what a test made in the default namespace."""
    yield cluster
    cluster.delete("pods", "--all", "--force", "--wait=true")
    cluster.delete("pvc", "--all")
    for number in (1, 2):
        left = wait_no_mounts(cluster, number)
        assert left == [], f"mounts left on node {number}: {left}"


def wait_no_mounts(cluster, number, seconds=20):
    """Our mounts on a node once kubelet has had the time to take them down."""
    import time

    end = time.monotonic() + seconds
    while (left := cluster.mounts(number)) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
