"""The chart: linted, compared with goldens, accepted by the API server to the letter, upgraded in place."""

import re
import subprocess
from pathlib import Path

import pytest

from cluster import CHART, NAMESPACE, ROOT, inline, pod, run
from conftest import install

GOLDEN = Path(__file__).with_name("golden")
SETS = ["default", "cert-manager", "full"]


def render(cluster, name, *extra):
    values = GOLDEN / f"{name}.values.yaml"
    return cluster.helm("template", "model-p2p", CHART, "-n", NAMESPACE, "-f", values, *extra)


def test_lint_finds_nothing(cluster):
    assert "0 chart(s) failed" in cluster.helm("lint", "--strict", CHART)


@pytest.mark.parametrize("name", SETS)
def test_templates_are_the_golden_ones(cluster, name):
    golden = GOLDEN / f"{name}.yaml"
    assert render(cluster, name) == golden.read_text(), f"see `make goldens`, then look at the difference of {golden}"


@pytest.mark.parametrize("name", ["default", "full"])
def test_api_server_takes_every_object_to_the_letter(cluster, name):
    objects, said = cluster.accepted[name]
    assert said.count("(server dry run)") == objects and objects > 20, said


def test_plain_manifests_are_the_chart_rendered(cluster):
    """`make manifests` writes them; a drift fails here."""
    rendered = cluster.helm("template", "model-p2p", CHART, "-n", NAMESPACE, "--set", "createNamespace=true")
    assert rendered == (ROOT / "deploy/manifests/model-p2p.yaml").read_text()


def test_one_version_everywhere(cluster):
    """Checklist 54."""
    crate = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    chart = (CHART / "Chart.yaml").read_text()
    assert f"version: {crate}\n" in chart and f"appVersion: {crate}\n" in chart
    name = cluster.driver_pod(1)
    image = cluster.get("pod", name, NAMESPACE)["spec"]["containers"][0]["image"]
    assert image.endswith(f":{crate}")


@pytest.mark.parametrize("bad", ["seed.bogus=1", "seed.replicas=9", "tls.mode=none", "kubeletPath=relative"])
def test_wrong_values_are_refused(cluster, bad):
    with pytest.raises(AssertionError, match=bad.split("=")[0].split(".")[-1]):
        cluster.helm("template", "model-p2p", CHART, "--set", bad)


def test_upgrade_keeps_claims_pods_and_cache(clean):
    """New seed and controller pods, node pods when they are deleted (OnDelete); the running pod keeps its volume,
    and what was fetched is not fetched again."""
    cluster = clean
    cluster.apply(pod("kept", {"m": inline("hf://acme/tiny@main")}, node=1))
    cluster.wait("pod/kept", "Ready")
    cluster.execute("kept", "sha256sum", "/m/model.safetensors")
    given = cluster.given("acme/tiny")
    install(cluster, "--set", "seed.podAnnotations.changed=yes", "--set", "controller.podAnnotations.changed=yes")
    assert "lab" in cluster.execute("kept", "cat", "/m/config.json")
    cluster.apply(pod("later", {"m": inline("hf://acme/tiny@main")}, node=2))
    cluster.wait("pod/later", "Ready")
    cluster.execute("later", "sha256sum", "/m/model.safetensors")
    assert cluster.given("acme/tiny") == given
