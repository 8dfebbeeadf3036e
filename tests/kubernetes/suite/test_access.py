"""Who may read what: gated and private models, two tokens on one node, rotation, namespaces."""

from cluster import claim, inline, of_claim, pod, secret
from conftest import OTHER_TOKEN, TOKEN, digest

GATED = "hf://acme/gated@main"


def test_gated_claim_takes_the_secret_of_its_namespace(clean, model):
    cluster = clean
    cluster.apply(
        claim("gated", GATED, storage_class="model-p2p-token"), pod("gated", {"m": of_claim("gated")}, node=1)
    )
    cluster.wait("pod/gated", "Ready")
    sum_ = cluster.execute("gated", "sha256sum", "/m/model.safetensors").split()[0]
    assert sum_ == digest(model / "model.safetensors")


def test_second_token_on_the_same_node_is_refused_cached_bytes(clean):
    """Checklist 35: the bytes are on the node, the right to them is not."""
    cluster = clean
    cluster.apply(pod("allowed", {"m": inline(GATED, secret="hf-token")}, node=1))
    cluster.wait("pod/allowed", "Ready")
    cluster.execute("allowed", "cat", "/m/config.json")
    cluster.apply(
        pod("stranger", {"m": inline(GATED, secret="stranger")}, node=1),
        pod("nobody", {"m": inline(GATED)}, node=1),
    )
    said = cluster.event("FailedMount", "stranger", containing="acme/gated")
    assert OTHER_TOKEN not in said and TOKEN not in said
    cluster.event("FailedMount", "nobody", containing="acme/gated")
    assert cluster.get("pod", "stranger")["status"]["phase"] == "Pending"


def test_other_namespace_without_a_secret_cannot_read_the_gated_model(cluster):
    """Checklist 35."""
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "neighbour"}})
    cluster.apply(claim("gated", GATED, storage_class="model-p2p-token"), namespace="neighbour")
    said = cluster.event("ProvisioningFailed", "gated", namespace="neighbour", containing="hf-token")
    assert "not found" in said
    cluster.delete("namespace/neighbour")


def test_republish_rotates_the_token_and_keeps_the_mount(clean):
    """Checklist 27: kubelet publishes again within its sync period; a withdrawn token does not take the mount
    from a running pod, and the pod says so."""
    cluster = clean
    cluster.apply(secret("rotating", token=TOKEN), pod("rotating", {"m": inline(GATED, secret="rotating")}, node=1))
    cluster.wait("pod/rotating", "Ready")
    cluster.apply(secret("rotating", token=OTHER_TOKEN))
    cluster.event("ModelDegraded", "rotating", timeout=60)
    assert "lab" in cluster.execute("rotating", "cat", "/m/config.json")
    cluster.delete("secret/rotating")


def test_no_secret_in_any_log_event_or_file(cluster):
    """Checklist 19, after all of the above."""
    for token in (TOKEN, OTHER_TOKEN):
        for what in ("node", "seed", "controller"):
            logs = cluster.kubectl(
                "logs", "-n", "model-p2p", "-l", f"app.kubernetes.io/component={what}", "--tail=-1", "--all-containers"
            )
            assert token not in logs, what
        assert token not in cluster.kubectl("get", "events", "-A", "-o", "yaml")
        assert token not in cluster.kubectl("get", "pv", "-o", "yaml")
        found = cluster.lab("grep", "-r", "-l", "-F", token, cluster.state / "seed", check=False)
        assert found.strip() == "", found
        for number in (1, 2):
            found = cluster.node(number, "grep", "-r", "-l", "-F", token, "/var/lib/model-p2p", check=False)
            assert found.strip() == "", found
