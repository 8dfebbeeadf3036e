"""The lab as the tests see it: kubectl beside the API server, a shell on each node, the hub, the chart."""

import json
import os
import subprocess
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "tests/kubernetes/lab"
CHART = ROOT / "deploy/helm/model-p2p"
DRIVER = "csi.model-p2p.dev"
NAMESPACE = "model-p2p"
HUB = "198.51.100.2"
HUB_URL = f"https://{HUB}:9443"
# What is answered within this is no longer waited for; a bound for what is broken, not a measure.
PATIENCE = 60


class Failed(AssertionError):
    """A command that was expected to succeed."""


def run(command, *, stdin=None, check=True, timeout=120):
    """Runs a program; returns what it printed, both streams when it may fail."""
    done = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, text=True, timeout=timeout
    )
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout if check else done.stdout + done.stderr


class Cluster:
    """A running lab. `nodes` counts from 1."""

    def __init__(self, state: Path):
        self.state = state

    def _enter(self, pid_file):
        pid = (self.state / pid_file).read_text().strip()
        return ["nsenter", "--target", pid, "--mount", "--uts", "--net", "--pid", "--wd=."]

    def lab(self, *command, **options):
        """Runs a program beside the API server."""
        return run([*self._enter("init.pid"), "--", *command], **options)

    def node(self, number, *command, **options):
        """Runs a program on a node: its mounts, its network, its containerd."""
        return run([*self._enter(f"node{number}.hostpid"), "--", *command], **options)

    def kubectl(self, *arguments, **options):
        return self.lab("kubectl", *arguments, **options)

    def helm(self, *arguments, **options):
        return self.lab("helm", *arguments, **options)

    def apply(self, *objects, namespace="default", **options):
        text = yaml.safe_dump_all(objects)
        return self.kubectl("apply", "-n", namespace, "-f", "-", stdin=text, **options)

    def get(self, kind, name, namespace="default"):
        return json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))

    def wait(self, what, condition, namespace="default", timeout=PATIENCE):
        """Waits for `Ready`, or for a jsonpath such as `.status.phase=Bound`."""
        how = f"jsonpath={{{condition.split('=')[0]}}}={condition.split('=')[1]}" if "=" in condition else f"condition={condition}"
        if condition == "deleted":
            how = "delete"
        self.kubectl("wait", what, f"--for={how}", "-n", namespace, f"--timeout={timeout}s", timeout=timeout + 10)

    def execute(self, pod, *command, namespace="default", **options):
        return self.kubectl("exec", pod, "-n", namespace, "--", *command, **options)

    def delete(self, what, *more, namespace="default"):
        self.kubectl("delete", what, "-n", namespace, "--ignore-not-found", *more)

    def event(self, reason, about, namespace="default", containing="", timeout=20):
        """The first event of that reason about an object, waited for as it comes."""
        watch = subprocess.Popen(
            [*self._enter("init.pid"), "--", "kubectl", "get", "events", "-n", namespace, "--watch",
             f"--field-selector=involvedObject.name={about},reason={reason}", "-o", "jsonpath={.message}{'\\n'}"],
            stdout=subprocess.PIPE, text=True,
        )
        killer = _Killer(watch, timeout)
        try:
            for line in watch.stdout:
                if containing in line:
                    return line.strip()
        finally:
            killer.end()
        seen = self.kubectl("get", "events", "-n", namespace, check=False)
        raise Failed(f"no event {reason} about {about} with `{containing}` within {timeout} s:\n{seen}")

    def driver_pod(self, node):
        """The name of the driver's pod on a node."""
        return self.kubectl(
            "get", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=node",
            f"--field-selector=spec.nodeName=labnode{node}", "-o", "jsonpath={.items[0].metadata.name}",
        )

    def mounts(self, node):
        """Our FUSE mounts and everything bound from them, as lines of mountinfo."""
        table = self.node(node, "cat", "/proc/self/mountinfo")
        return [line for line in table.splitlines() if line.split(" - ")[-1].startswith("fuse.model-p2p")]

    # The hub

    def hub(self, path="/_test/stats", data=None):
        """What the hub double counted, or one of its controls."""
        post = ["--data", json.dumps(data)] if data is not None else []
        ca = self.state / "pki/ca.crt"
        return self.lab("curl", "--silent", "--show-error", "--fail", "--cacert", ca, *post, HUB_URL + path)

    def given(self, repo):
        """Bytes of content that the hub gave of a repository."""
        stats = json.loads(self.hub())["repos"].get(repo)
        return stats["hub_bytes"] + stats["cdn_bytes"] if stats else 0

    def requests(self, repo):
        stats = json.loads(self.hub())["repos"].get(repo)
        return stats["requests"] if stats else {}


class _Killer:
    """Ends a watch that sees nothing."""

    def __init__(self, process, seconds):
        import threading

        self.process = process
        self.timer = threading.Timer(seconds, process.kill)
        self.timer.start()

    def end(self):
        self.timer.cancel()
        self.process.kill()
        self.process.wait()


def claim(name, model=None, *, storage_class="model-p2p", modes=("ReadOnlyMany",), annotations=None, **spec):
    """A PersistentVolumeClaim of a model."""
    notes = {f"model-p2p.dev/{key}": value for key, value in (annotations or {}).items()}
    if model:
        notes["model-p2p.dev/model"] = model
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "annotations": notes},
        "spec": {
            "storageClassName": storage_class,
            "accessModes": list(modes),
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def inline(model, secret=None, **attributes):
    """An inline ephemeral volume."""
    source = {"driver": DRIVER, "readOnly": True, "volumeAttributes": {"model": model, **attributes}}
    if secret:
        source["nodePublishSecretRef"] = {"name": secret}
    return {"csi": source}


def of_claim(name, read_only=True):
    return {"persistentVolumeClaim": {"claimName": name, "readOnly": read_only}}


def pod(name, volumes, *, node=None, container=None, mounts=None, **spec):
    """A pod that sleeps, with its volumes at /NAME. `volumes`: sources by name."""
    mounts = mounts or [{"name": volume, "mountPath": f"/{volume}"} for volume in volumes]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            # By the scheduler, as users' pods: a pod that names its node itself reaches kubelet before its claim is
            # bound, and kubelet then looks again after 10 to 15 s.
            **({"nodeSelector": {"kubernetes.io/hostname": f"labnode{node}"}} if node else {}),
            "containers": [
                {
                    "name": "reader",
                    "image": "localhost/busybox:1",
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 1; done"],
                    "volumeMounts": mounts,
                    **(container or {}),
                }
            ],
            "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
            **spec,
        },
    }


def secret(name, **values):
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self):
        self.begun = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.begun
