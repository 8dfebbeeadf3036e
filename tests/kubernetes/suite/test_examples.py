"""The examples: the API server takes each one as it is, and our own kinds of volume in them are well spelled."""

from pathlib import Path

import pytest
import yaml

from cluster import DRIVER, ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
# Kinds that another project's operator brings.
FOREIGN = {"InferenceService"}


def test_there_are_examples():
    assert len(EXAMPLES) >= 9


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_applies_as_it_is(cluster, path):
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    own = [document for document in documents if document["kind"] not in FOREIGN]
    text = yaml.safe_dump_all(own)
    cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert "hf://" in path.read_text() or DRIVER in path.read_text()
