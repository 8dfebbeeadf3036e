#!/usr/bin/env bash
# Builds the static program and its container image, and prints the archive's path. ARCH is x86_64 or aarch64
# (the latter needs its Rust target and a cross linker). No daemon, no registry.
set -euo pipefail
cd "$(dirname "$0")/.."
arch=${ARCH:-$(uname -m)}
target=$arch-unknown-linux-gnu
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
name=ghcr.io/model-p2p/model-p2p:$version
out=$PWD/target/image
command -v buildah >/dev/null || { echo 'missing: apt-get install buildah' >&2; exit 1; }

RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --quiet --profile image --target "$target" --bin model-p2p >&2
mkdir -p "$out/context"
install -m 0755 "target/$target/image/model-p2p" "$out/context/model-p2p-$arch"
archive=$out/model-p2p-$version-$arch.tar
rm -f "$archive"
b=(buildah --root "$out/storage" --runroot "$out/run" --storage-driver vfs)
"${b[@]}" bud --quiet --isolation chroot --timestamp 0 --build-arg "ARCH=$arch" --tag "$name" \
    --file deploy/Dockerfile "$out/context" >/dev/null
"${b[@]}" push --quiet "$name" "docker-archive:$archive:$name" >&2
echo "$archive"
