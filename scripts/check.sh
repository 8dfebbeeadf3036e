#!/usr/bin/env bash
# Says in one line what is missing that no script here can install.
set -eu
fail() { echo "missing: $1" >&2; exit 1; }
command -v cargo >/dev/null || fail 'Rust: install rustup from https://rustup.rs, then run this again'
command -v python3 >/dev/null || fail 'Python 3: apt-get install python3'
[ "$(id -u)" = 0 ] || fail 'root: mounting needs it; run with sudo -E'
[ -e /dev/fuse ] || fail '/dev/fuse: load the kernel module with modprobe fuse'
