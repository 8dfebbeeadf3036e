"""Volumes as users make them: claims, inline, static; what a pod may do with them and how fast it has them."""

import json
from pathlib import Path

import pytest

from cluster import DRIVER, Stopwatch, claim, inline, of_claim, pod
from conftest import GIANT_BYTES, HUB_URL, SHARDS, TOKEN, digest

COMMIT = r"[0-9a-f]{40}"
TINY = "hf://acme/tiny@main"
GIANT = "hf://acme/giant@main"


def read_digest(cluster, name, path):
    return cluster.execute(name, "sha256sum", path).split()[0]


def ready(cluster, name, timeout=60):
    cluster.wait(f"pod/{name}", "Ready", timeout=timeout)


def test_csidriver_has_the_fields_that_cannot_change(cluster):
    """Checklist 20."""
    spec = cluster.get("csidriver", DRIVER)["spec"]
    expected = {
        "attachRequired": False, "podInfoOnMount": True, "fsGroupPolicy": "None", "requiresRepublish": True,
        "storageCapacity": False, "seLinuxMount": False,
    }
    assert {key: spec[key] for key in expected} == expected
    assert sorted(spec["volumeLifecycleModes"]) == ["Ephemeral", "Persistent"]


def test_giant_claim_and_inline_are_running_within_seconds(clean, model):
    """Checklist 21, 22, 25, 30: 130 GB by claim and inline, one FUSE mount, one cache copy, the right bytes;
    then a second node reads the same without the hub."""
    cluster = clean
    watch = Stopwatch()
    cluster.apply(
        claim("giant", GIANT),
        pod("by-claim", {"m": of_claim("giant")}, node=1),
        pod("by-inline", {"m": inline(GIANT)}, node=1),
    )
    ready(cluster, "by-claim")
    ready(cluster, "by-inline")
    seconds = watch.seconds()
    print(f"\n130 GB by claim and inline ready {seconds:.1f} s after apply")
    assert seconds < 5, f"{seconds:.1f} s from apply to both ready"

    fuse = [line for line in cluster.mounts(1) if "/plugins/" in line]
    assert len(fuse) == 1, fuse
    shard = f"model-00007-of-{SHARDS:05}.safetensors"
    offset = 3 * 10**9 + 4096
    read = f"dd if=/m/{shard} bs=4096 skip={offset // 4096} count=256 2>/dev/null | sha256sum"
    expected = hub_range(cluster, "acme/giant", shard, offset - offset % 4096, 1 << 20)
    before = cluster.given("acme/giant")
    for name in ("by-claim", "by-inline"):
        assert cluster.execute(name, "sh", "-c", read).split()[0] == expected, name
    from_hub = cluster.given("acme/giant") - before
    assert from_hub <= 4 << 20, f"the hub gave {from_hub} bytes for 1 MiB read twice"

    cluster.apply(pod("elsewhere", {"m": of_claim("giant")}, node=2))
    ready(cluster, "elsewhere")
    before = cluster.given("acme/giant")
    assert cluster.execute("elsewhere", "sh", "-c", read).split()[0] == expected
    assert cluster.given("acme/giant") == before, "the second node's bytes came from the hub"

    volume = cluster.get("pvc", "giant")["spec"]["volumeName"]
    described = cluster.kubectl("describe", "pv", volume)
    attributes = cluster.get("pv", volume)["spec"]["csi"]["volumeAttributes"]
    assert attributes["commit"] in described and len(attributes["commit"]) == 40
    assert attributes["bytes"] == str(GIANT_BYTES // SHARDS * SHARDS) and attributes["files"] == str(SHARDS)
    assert "ModelResolved" in cluster.kubectl("describe", "pvc", "giant")


def hub_range(cluster, repo, path, offset, length):
    """The digest of a range as the hub itself gives it; the hub's counters see these bytes too."""
    import hashlib
    import subprocess

    url = f"{HUB_URL}/{repo}/resolve/main/{path}"
    ca = cluster.state / "pki/ca.crt"
    command = [*cluster._enter("init.pid"), "--", "curl", "--silent", "--fail", "--location", "--cacert", str(ca),
               "--range", f"{offset}-{offset + length - 1}", url]
    content = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert len(content) == length
    return hashlib.sha256(content).hexdigest()


def test_second_node_reads_everything_without_the_hub(clean, model):
    """Each byte leaves the hub once, whoever reads."""
    cluster = clean
    cluster.apply(pod("first", {"m": inline("hf://acme/cold@main")}, node=1))
    ready(cluster, "first")
    for path in ("model.safetensors", "tokenizer.json", "nested/deeper/notes.txt", "config.json"):
        assert read_digest(cluster, "first", f"/m/{path}") == digest(model / path), path
    given = cluster.given("acme/cold")
    cluster.apply(pod("second", {"m": inline("hf://acme/cold@main")}, node=2))
    ready(cluster, "second")
    for path in ("model.safetensors", "tokenizer.json", "nested/deeper/notes.txt", "config.json"):
        assert read_digest(cluster, "second", f"/m/{path}") == digest(model / path), path
    assert cluster.given("acme/cold") == given


def test_inline_needs_no_controller(clean, model):
    """Checklist 22."""
    cluster = clean
    scale = ["scale", "deployment/model-p2p-controller", "-n", "model-p2p"]
    cluster.kubectl(*scale, "--replicas=0")
    cluster.kubectl("wait", "pod", "-n", "model-p2p", "-l", "app.kubernetes.io/component=controller", "--for=delete")
    try:
        cluster.apply(pod("alone", {"m": inline(TINY)}, node=1))
        ready(cluster, "alone")
        assert read_digest(cluster, "alone", "/m/config.json") == digest(model / "config.json")
    finally:
        cluster.kubectl(*scale, "--replicas=1")
        cluster.wait("deployment/model-p2p-controller", "Available", namespace="model-p2p")


def static_volume(name, model, mode="ReadOnlyMany"):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": [mode],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": DRIVER, "volumeHandle": name, "readOnly": True, "volumeAttributes": {"model": model}},
        },
    }


def test_static_volume_shows_one_commit_on_every_node(clean, model):
    """Checklist 23: nobody wrote a commit into it, so the seed keeps the first."""
    cluster = clean
    cluster.apply(
        static_volume("static", "hf://acme/static@main"),
        claim("static", storage_class="", volumeName="static"),
        pod("static-1", {"m": of_claim("static")}, node=1),
        pod("static-2", {"m": of_claim("static")}, node=2),
    )
    for name in ("static-1", "static-2"):
        ready(cluster, name)
        assert read_digest(cluster, name, "/m/model.safetensors") == digest(model / "model.safetensors")
    cluster.delete("pod/static-1", "pod/static-2")
    cluster.delete("pvc/static")
    cluster.delete("pv/static")


@pytest.mark.parametrize("mode", ["ReadOnlyMany", "ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"])
def test_every_access_mode_is_read_only_inside(clean, mode):
    """Checklist 24."""
    cluster = clean
    name = mode.lower()
    read_only = mode == "ReadOnlyMany"
    cluster.apply(claim(name, TINY, modes=[mode]), pod(name, {"m": of_claim(name, read_only)}, node=1))
    ready(cluster, name)
    said = cluster.execute(name, "sh", "-c", "echo x > /m/new; echo x > /m/config.json; mkdir /m/d; true", check=False)
    assert said.count("Read-only file system") == 3, said
    assert "lab" in cluster.execute(name, "cat", "/m/config.json")


def test_fs_group_and_non_root_read_without_a_walk(clean):
    """Checklist 26: nothing is chowned, and nothing is fetched by preparing the volume."""
    cluster = clean
    before = cluster.given("acme/giant")
    cluster.apply(pod(
        "plain-user", {"m": inline(GIANT)}, node=1,
        securityContext={"runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 5678, "runAsNonRoot": True},
    ))
    ready(cluster, "plain-user")
    assert cluster.given("acme/giant") == before
    shard = f"/m/model-00001-of-{SHARDS:05}.safetensors"
    assert cluster.execute("plain-user", "stat", "-c", "%u:%g", shard).strip() == "0:0"
    cluster.execute("plain-user", "sh", "-c", f"dd if={shard} bs=4096 count=1 of=/dev/null 2>/dev/null")


def test_user_namespace_reads_through_an_idmapped_mount(clean, model):
    """`hostUsers: false`: the runtime shows the volume through an idmapped mount."""
    cluster = clean
    cluster.apply(pod("mapped", {"m": inline(TINY)}, node=1))
    ready(cluster, "mapped")
    target = next(line.split()[4] for line in cluster.mounts(1) if "/pods/" in line)
    script = Path(__file__).with_name("idmap.py")
    said = cluster.node(1, "python3", script, target, "/run/model-p2p-idmapped", "config.json")
    assert said == "100000\n" + (model / "config.json").read_text() + "\n"


def test_sub_paths_of_a_file_and_of_a_folder(clean, model):
    """Checklist 29."""
    cluster = clean
    mounts = [
        {"name": "m", "mountPath": "/one.json", "subPath": "config.json"},
        {"name": "m", "mountPath": "/deeper", "subPath": "nested/deeper"},
    ]
    cluster.apply(claim("sub", TINY), pod("sub", {"m": of_claim("sub")}, node=1, mounts=mounts))
    ready(cluster, "sub")
    assert read_digest(cluster, "sub", "/one.json") == digest(model / "config.json")
    assert read_digest(cluster, "sub", "/deeper/notes.txt") == digest(model / "nested/deeper/notes.txt")


def test_restricted_namespace_takes_an_inline_volume(cluster):
    """Checklist 28."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict", "labels": labels}})
    restricted = {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True, "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", "strict", "--timeout=20s")
    cluster.apply(
        pod("modest", {"m": inline(TINY)}, node=1, container={"securityContext": restricted}), namespace="strict"
    )
    cluster.wait("pod/modest", "Ready", namespace="strict")
    assert "lab" in cluster.execute("modest", "cat", "/m/config.json", namespace="strict")
    cluster.delete("namespace/strict")


def test_only_part_of_a_revision_is_shown(clean):
    cluster = clean
    cluster.apply(
        claim("part", "hf://acme/tiny@main/nested", annotations={"exclude": "*.json"}),
        pod("part", {"m": of_claim("part"), "few": inline(TINY, include="*.json,nested/**")}, node=1),
    )
    ready(cluster, "part")
    assert cluster.execute("part", "find", "/m", "-type", "f").split() == ["/m/deeper/notes.txt"]
    shown = sorted(cluster.execute("part", "find", "/few", "-type", "f").split())
    assert shown == ["/few/config.json", "/few/nested/deeper/notes.txt", "/few/tokenizer.json"]


def test_clone_of_a_claim_is_the_same_revision(clean, model):
    cluster = clean
    cluster.apply(claim("source", TINY))
    cluster.wait("pvc/source", ".status.phase=Bound")
    asked = cluster.requests("acme/tiny")
    cluster.apply(
        claim("copy", dataSource={"kind": "PersistentVolumeClaim", "name": "source"}),
        pod("copy", {"m": of_claim("copy")}, node=1),
    )
    ready(cluster, "copy")
    commits = {
        cluster.get("pv", cluster.get("pvc", name)["spec"]["volumeName"])["spec"]["csi"]["volumeAttributes"]["commit"]
        for name in ("source", "copy")
    }
    assert len(commits) == 1
    assert cluster.requests("acme/tiny").get("revision") == asked.get("revision"), "a clone asked the hub for a commit"
    assert read_digest(cluster, "copy", "/m/config.json") == digest(model / "config.json")


def test_wrong_reference_shows_as_an_event_with_its_remedy(clean):
    """Checklist 34, within 10 s of apply."""
    cluster = clean
    cluster.apply(claim("absent", "hf://acme/absent@main"), claim("nothing"), claim("typo", TINY, annotations={"modle": "x"}))
    assert "acme/absent" in cluster.event("ProvisioningFailed", "absent", timeout=10)
    assert "model-p2p.dev/model" in cluster.event("ProvisioningFailed", "nothing", timeout=10)
    message = cluster.event("ProvisioningFailed", "typo", containing="modle", timeout=10)
    assert "known are" in message and "model" in message

    cluster.apply(
        pod("lost", {"m": inline("hf://acme/absent@main")}, node=1),
        pod("unknown", {"m": inline(TINY, color="red")}, node=1),
        pod("elsewhere", {"m": inline(TINY, endpoint="http://169.254.169.254")}, node=1),
    )
    assert "acme/absent" in cluster.event("FailedMount", "lost", containing="absent", timeout=10)
    assert "known are" in cluster.event("FailedMount", "unknown", containing="color", timeout=10)
    assert "not allowed in a pod" in cluster.event("FailedMount", "elsewhere", containing="endpoint", timeout=10)


def test_block_mode_and_foreign_mount_options_are_refused(clean):
    cluster = clean
    cluster.apply(claim("raw", TINY, volumeMode="Block"))
    assert "block" in cluster.event("ProvisioningFailed", "raw", containing="lock").lower()
    volume = static_volume("suid", TINY)
    volume["spec"]["mountOptions"] = ["suid"]
    cluster.apply(volume, claim("suid", storage_class="", volumeName="suid"), pod("suid", {"m": of_claim("suid")}, node=1))
    assert "suid" in cluster.event("FailedMount", "suid", containing="suid")
    cluster.delete("pod/suid")
    cluster.delete("pvc/suid")
    cluster.delete("pv/suid")


def test_pod_events_tell_what_was_mounted(clean):
    cluster = clean
    cluster.apply(pod("told", {"m": inline(TINY)}, node=1))
    message = cluster.event("ModelMounted", "told")
    assert "acme/tiny" in message and json.dumps(message).count(TOKEN) == 0


def test_hub_that_is_down_delays_what_is_not_pinned_and_nothing_else(clean, model):
    """The event says so, kubelet tries again, and the pod runs once the hub answers; meanwhile a public model that is
    pinned and cached is published."""
    cluster = clean
    cluster.apply(pod("known", {"m": inline(TINY)}, node=1))
    ready(cluster, "known")
    cluster.hub("/_test/faults", {"on": "any", "times": 0, "kind": {"status": 503}})
    try:
        cluster.apply(
            pod("late", {"m": inline("hf://acme/late@main")}, node=1),
            pod("known-2", {"m": inline(TINY)}, node=1),
        )
        said = cluster.event("FailedMount", "late", containing="acme/late")
        assert "Unavailable" in said and "503" in said, said
        ready(cluster, "known-2")
    finally:
        cluster.hub("/_test/reset", {})
    ready(cluster, "late")
    assert read_digest(cluster, "late", "/m/config.json") == digest(model / "config.json")
