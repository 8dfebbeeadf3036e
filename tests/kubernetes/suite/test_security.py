"""What the driver's own pods may do, and what others may do to them."""

import json
import os
from pathlib import Path

import pytest

from cluster import DRIVER, NAMESPACE, claim, inline, pod

GOLDEN = Path(__file__).with_name("golden")


def pods(cluster, role):
    text = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/component={role}", "-o", "json")
    return json.loads(text)["items"]


def test_only_the_node_container_is_privileged(cluster):
    """Checklist 43."""
    for role in ("controller", "seed", "bootstrap"):
        for found in pods(cluster, role):
            assert found["spec"]["securityContext"]["runAsNonRoot"] is True
            assert found["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in found["spec"]["containers"]:
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
                assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
    for found in pods(cluster, "node"):
        spec = found["spec"]
        assert [c["name"] for c in spec["containers"] if c["securityContext"].get("privileged")] == ["node"]
        assert not spec.get("hostPID") and not spec.get("hostNetwork")


@pytest.mark.parametrize("role", ["node", "seed"])
def test_no_token_is_mounted_where_none_is_needed(cluster, role):
    """Checklist 44."""
    for found in pods(cluster, role):
        assert found["spec"]["automountServiceAccountToken"] is False
        assert "kube-api-access" not in json.dumps(found["spec"])


@pytest.mark.parametrize("role", ["node", "seed", "controller", "bootstrap"])
def test_rights_are_the_golden_list(cluster, role):
    """Checklist 44: `kubectl auth can-i --list`, without what every account has."""
    account = f"--as=system:serviceaccount:{NAMESPACE}:model-p2p-{role}"
    groups = ["--as-group=system:serviceaccounts", "--as-group=system:authenticated"]
    said = cluster.kubectl("auth", "can-i", "--list", account, *groups, "-n", NAMESPACE, "--no-headers")
    common = cluster.kubectl(
        "auth", "can-i", "--list", f"--as=system:serviceaccount:{NAMESPACE}:nobody", *groups, "-n", NAMESPACE, "--no-headers"
    )
    lines = [{" ".join(line.split()) for line in text.splitlines()} for text in (said, common)]
    own = sorted(lines[0] - lines[1])
    golden = GOLDEN / f"rbac-{role}.txt"
    assert own == golden.read_text().splitlines(), "\n".join(own)


def test_sockets_are_roots_alone(cluster):
    """Checklist 45."""
    for path in (f"/var/lib/kubelet/plugins/{DRIVER}/csi.sock", f"/var/lib/kubelet/plugins_registry/{DRIVER}-reg.sock"):
        assert cluster.node(1, "stat", "-c", "%a %u %F", path).strip() == "600 0 socket", path


def test_mounts_are_read_only_and_harmless(clean):
    """Checklist 48."""
    cluster = clean
    cluster.apply(pod("flags", {"m": inline("hf://acme/tiny@main")}, node=1))
    cluster.wait("pod/flags", "Ready")
    lines = cluster.mounts(1)
    assert len(lines) == 2, lines
    for line in lines:
        options = line.split()[5].split(",")
        assert {"ro", "nosuid", "nodev"} <= set(options), line


def test_control_port_refuses_who_has_no_certificate(cluster):
    """A pod that reaches the seed's control port gets nothing without a certificate of this cluster."""
    seed = pods(cluster, "seed")[0]["status"]["podIP"]
    plain = cluster.lab("curl", "--silent", "--show-error", "--max-time", "5", "--http2-prior-knowledge",
                        f"http://{seed}:7440/", check=False)
    assert "curl:" in plain, plain
    foreign = cluster.lab("curl", "--silent", "--show-error", "--max-time", "5", "--insecure",
                          f"https://{seed}:7440/model_p2p.swarm.v1.Seed/Resolve", "-X", "POST", check=False)
    assert "curl:" in foreign and "200" not in foreign, foreign
    for said in (plain, foreign):
        assert "connect to" not in said, f"nobody listens there: {said}"


def test_image_is_small_static_and_bare(cluster):
    """Checklist 49: one file, below 25 MB, no dynamic linker."""
    import tarfile

    archive = os.environ["MODEL_P2P_IMAGE"]
    with tarfile.open(archive) as image:
        manifest = json.load(image.extractfile("manifest.json"))
        layers = [image.extractfile(layer) for layer in manifest[0]["Layers"]]
        files = [member for layer in layers for member in tarfile.open(fileobj=layer) if member.isfile()]
        assert [member.name for member in files] == ["model-p2p"]
        size = files[0].size
        config = json.load(image.extractfile(manifest[0]["Config"]))
    print(f"\nimage: {size / 1e6:.1f} MB")
    assert size < 25_000_000
    assert config["config"]["User"] == "65532:65532"


def test_api_client_conforms_with_the_controllers_own_rights(cluster):
    """`csi::Claims` against the real API server, as against its twin in memory: claims read, volumes found, an event
    written once by two replicas, and nothing else allowed."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    source = {"driver": DRIVER, "volumeHandle": "v1", "volumeAttributes": {"commit": "c"}}
    spec = {"storageClassName": "none", "accessModes": ["ReadOnlyMany"], "capacity": {"storage": "1Gi"}, "csi": source}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"}, "spec": spec}
    cluster.apply(volume, claim("claim", "m", storage_class="other"), namespace="team")
    token = cluster.kubectl("create", "token", "model-p2p-controller", "-n", NAMESPACE).strip()
    access = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {
            "server": "https://198.51.100.2:6443", "certificate-authority": str(cluster.state / "pki/ca.crt")}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    kubeconfig = cluster.state / "controller.kubeconfig"
    kubeconfig.write_text(json.dumps(access))
    try:
        said = cluster.lab(
            "env", f"MODEL_P2P_TEST_KUBECONFIG={kubeconfig}", os.environ["MODEL_P2P_UNIT_TESTS"],
            "a_real_cluster_conforms", "--nocapture",
        )
        assert "1 passed" in said and "skipped" not in said, said
        events = json.loads(cluster.kubectl("get", "events", "-n", "team", "-o", "json"))["items"]
        assert [event["reason"] for event in events if event["reason"] == "ModelResolved"] == ["ModelResolved"]
    finally:
        kubeconfig.unlink()
        cluster.delete("namespace/team")
        cluster.delete("pv/pv-1")
