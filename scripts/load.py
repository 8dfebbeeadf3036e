"""Loads a model directory as an inference engine does and says what it saw, as one JSON line.

usage: load.py DIR   prints `ready`, waits for a line on stdin, then loads

Order of work: configuration files first, then every tensor of every shard through safetensors' mmap, in
the file's own order. Afterwards every file is read once more and hashed.
"""

import hashlib
import json
import sys
import time
from pathlib import Path

from safetensors import safe_open


def shards(root: Path) -> list[Path]:
    """The weight files, in the order of the index where there is one."""
    index = root / "model.safetensors.index.json"
    if index.exists():
        names = json.loads(index.read_text())["weight_map"].values()
        return [root / name for name in sorted(set(names))]
    return sorted(root.glob("*.safetensors"))


def load(root: Path) -> dict:
    started = time.monotonic()
    for name in ["config.json", "tokenizer.json"]:
        (root / name).read_bytes()
    first_byte, digest, tensors = None, {}, 0
    for path in shards(root):
        with safe_open(path, framework="numpy") as weights:
            for name in weights.offset_keys() if hasattr(weights, "offset_keys") else weights.keys():
                tensor = weights.get_tensor(name)
                first_byte = first_byte or time.monotonic() - started
                digest[name] = hashlib.sha256(tensor.tobytes()).hexdigest()
                tensors += 1
    last_byte = time.monotonic() - started
    every = "".join(f"{name}={digest[name]}\n" for name in sorted(digest))
    return {
        "first_byte_seconds": first_byte,
        "last_byte_seconds": last_byte,
        "tensors": tensors,
        "tensors_sha256": hashlib.sha256(every.encode()).hexdigest(),
        "files": {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        },
    }


def main() -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(load(Path(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
