"""What happens to volumes when pods, kubelets, nodes and claims come and go."""

import json
import subprocess
import time

from cluster import LAB, NAMESPACE, Stopwatch, claim, inline, of_claim, pod
from conftest import digest, wait_no_mounts, wait_registered

TINY = "hf://acme/tiny@main"


def reads(cluster, name, model):
    path = "model.safetensors"
    return cluster.execute(name, "sha256sum", f"/m/{path}").split()[0] == digest(model / path)


def test_kubelet_restart_keeps_pods_and_later_deletes_clean(clean, model):
    """Checklist 31."""
    cluster = clean
    cluster.apply(pod("steady", {"m": inline(TINY)}, node=1))
    cluster.wait("pod/steady", "Ready")
    restart_kubelet(cluster, 1)
    wait_known(cluster, "steady")
    assert reads(cluster, "steady", model)
    cluster.delete("pod/steady")
    assert wait_no_mounts(cluster, 1) == []


def restart_kubelet(cluster, number):
    """Ends kubelet as its service manager would and starts it with the same command."""
    directory = cluster.state / f"node{number}"
    inside = (directory / "kubelet.pid").read_text().strip()
    command = cluster.node(number, "cat", f"/proc/{inside}/cmdline").split("\0")[:-1]
    cluster.node(number, "kill", inside)
    cluster.node(number, "sh", "-c", f"while kill -0 {inside} 2>/dev/null; do sleep 0.1; done")
    log = open(cluster.state / f"logs/kubelet{number}.log", "a")
    subprocess.Popen([*cluster._enter(f"node{number}.hostpid"), "--", *command], stdout=log, stderr=log,
                     start_new_session=True)
    wait_ready_since(cluster, number)


def wait_ready_since(cluster, number, seconds=60):
    """Until the node's kubelet answers: its own API says so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = cluster.node(number, "curl", "--silent", "http://127.0.0.1:10248/healthz", check=False)
        if said.strip() == "ok":
            return
        time.sleep(0.1)
    raise AssertionError(f"kubelet of node {number} does not answer")


def wait_known(cluster, name, seconds=30):
    """Until a kubelet that has just started knows the pod again: nothing but a call shows it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if "known" in cluster.execute(name, "echo", "known", check=False).splitlines():
            return
        time.sleep(0.2)
    raise AssertionError(f"kubelet does not know {name}")


def test_force_delete_and_drain_leave_nothing(clean):
    """Checklist 32."""
    cluster = clean
    cluster.apply(
        claim("drained", TINY),
        pod("forced", {"m": inline(TINY)}, node=2),
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "drained"},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": {"app": "drained"}},
                "template": {
                    "metadata": {"labels": {"app": "drained"}},
                    "spec": {**pod("x", {"m": of_claim("drained")})["spec"], "nodeSelector": {"kubernetes.io/hostname": "labnode2"}},
                },
            },
        },
    )
    cluster.wait("deployment/drained", "Available")
    cluster.wait("pod/forced", "Ready")
    cluster.delete("pod/forced", "--force", "--grace-period=0")
    try:
        cluster.kubectl("drain", "labnode2", "--ignore-daemonsets", "--delete-emptydir-data", "--force",
                        "--pod-selector=app=drained", "--timeout=60s")
        assert wait_no_mounts(cluster, 2) == []
        left = cluster.node(2, "find", "/var/lib/kubelet/pods", "-maxdepth", "4", "-path", "*kubernetes.io~csi/*", check=False)
        assert left.strip() == "", left
    finally:
        cluster.kubectl("uncordon", "labnode2")
        cluster.delete("deployment/drained")


def test_claim_in_use_is_protected_and_reclaimed_afterwards(clean):
    """Checklist 33."""
    cluster = clean
    cluster.apply(claim("kept", TINY), pod("user", {"m": of_claim("kept")}, node=1))
    cluster.wait("pod/user", "Ready")
    volume = cluster.get("pvc", "kept")["spec"]["volumeName"]
    cluster.kubectl("delete", "pvc", "kept", "--wait=false")
    assert "pvc-protection" in json.dumps(cluster.get("pvc", "kept")["metadata"]["finalizers"])
    assert "lab" in cluster.execute("user", "cat", "/m/config.json")
    cluster.delete("pod/user")
    cluster.wait("pvc/kept", "deleted")
    cluster.wait(f"pv/{volume}", "deleted")


def test_retained_volume_stays(clean):
    cluster = clean
    cluster.apply(
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "retained"},
         "provisioner": "csi.model-p2p.dev", "reclaimPolicy": "Retain", "parameters": {"model": TINY}},
        claim("retained", storage_class="retained"),
    )
    cluster.wait("pvc/retained", ".status.phase=Bound")
    volume = cluster.get("pvc", "retained")["spec"]["volumeName"]
    cluster.delete("pvc/retained")
    cluster.wait(f"pv/{volume}", ".status.phase=Released")
    cluster.delete(f"pv/{volume}")
    cluster.delete("storageclass/retained")


def test_branch_that_moves_does_not_move_a_claim(clean):
    """Checklist 3: the pin is made once; a new claim sees the new commit, the old one stays, also for a controller
    that has just started and remembers nothing."""
    cluster = clean

    def commit(name):
        cluster.wait(f"pvc/{name}", ".status.phase=Bound")
        volume = cluster.get("pvc", name)["spec"]["volumeName"]
        return cluster.get("pv", volume)["spec"]["csi"]["volumeAttributes"]["commit"]

    cluster.apply(claim("before", "hf://acme/moving@main"))
    first = commit("before")
    cluster.hub("/_test/move", {"repo": "acme/moving"})
    cluster.kubectl("rollout", "restart", "deployment/model-p2p-controller", "-n", NAMESPACE)
    cluster.kubectl("rollout", "status", "deployment/model-p2p-controller", "-n", NAMESPACE, "--timeout=60s")
    cluster.apply(pod("old", {"m": of_claim("before")}, node=2))
    cluster.wait("pod/old", "Ready")
    assert commit("before") == first
    assert "moved.txt" not in cluster.execute("old", "ls", "/m")
    # A branch is believed for a minute at the seed; another name of it is asked for anew.
    cluster.apply(claim("after", "hf://acme/moving@refs/pr/1"))
    assert commit("after") != first


def test_power_cut_of_a_node(clean, model):
    """`kill -9` of the node's init; booted again, its pod runs and reads within 15 s of kubelet's return, from the
    cache that the node kept."""
    cluster = clean
    cluster.apply(pod("survivor", {"m": inline(TINY)}, node=2, restartPolicy="Always"))
    cluster.wait("pod/survivor", "Ready")
    assert reads(cluster, "survivor", model)
    given = cluster.given("acme/tiny")
    subprocess.run(["bash", LAB / "node-ctl.sh", "crash", "2"], check=True, timeout=60)
    subprocess.run(["bash", LAB / "node-ctl.sh", "boot", "2"], check=True, timeout=60)
    wait_ready_since(cluster, 2)
    watch = Stopwatch()
    # The container that ran before the cut is told apart from the one after it by its restarts.
    cluster.wait("pod/survivor", ".status.containerStatuses[0].restartCount=1", timeout=60)
    cluster.wait("pod/survivor", "Ready", timeout=60)
    assert reads(cluster, "survivor", model)
    seconds = watch.seconds()
    print(f"\nreads {seconds:.1f} s after kubelet is back")
    assert seconds < 15
    assert cluster.given("acme/tiny") == given, "the kept cache was not used"
    wait_registered(cluster, 2)


def test_killed_worker_is_back_at_once_and_new_pods_run(clean, model):
    """The supervisor starts a dead worker again; what was mounted is cleaned up and published again."""
    cluster = clean
    cluster.apply(pod("before-kill", {"m": inline(TINY)}, node=1))
    cluster.wait("pod/before-kill", "Ready")
    restarts = restart_count(cluster)
    workers = cluster.node(1, "pgrep", "-f", "^[^ ]+ node --node-id").split()
    assert len(workers) == 1, workers
    cluster.node(1, "kill", "-9", workers[0])
    cluster.apply(pod("after-kill", {"m": inline(TINY)}, node=1))
    cluster.wait("pod/after-kill", "Ready")
    assert reads(cluster, "after-kill", model)
    assert restart_count(cluster) == restarts, "the container was restarted, not the worker"


def restart_count(cluster):
    name = cluster.driver_pod(1)
    return cluster.get("pod", name, NAMESPACE)["status"]["containerStatuses"][0]["restartCount"]
