#!/usr/bin/env bash
# Runs tests/kubernetes in a real cluster of two nodes with the real image: KUBERNETES=1.36 (default) or 1.37.
# Arguments go to pytest, for example `-k gated`.
set -euo pipefail
cd "$(dirname "$0")/.."
lab=tests/kubernetes/lab

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need containerd containerd
need runc runc
need buildah buildah
need busybox busybox-static
need nft nftables
need iptables iptables
need conntrack conntrack
need openssl openssl
need ip iproute2
need pgrep procps
[ -x /usr/lib/cni/bridge ] || packages+=(containernetworking-plugins)
if [ ${#packages[@]} -gt 0 ]; then
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >&2
fi
command -v go >/dev/null || { echo 'missing: Go 1.26, see https://go.dev/dl' >&2; exit 1; }

tools=$(scripts/tools.sh)
echo "== building Kubernetes ${KUBERNETES:-1.36} where the cache has it not" >&2
bash "$lab/build.sh"
MODEL_P2P_IMAGE=$(scripts/image.sh)
export MODEL_P2P_IMAGE
cargo build --quiet --features testing --bin testhub
# The tests beside the code, for the one of them that wants a real API server.
MODEL_P2P_UNIT_TESTS=$(cargo test --quiet --features testing --lib --no-run --message-format=json |
    "$tools/venv/bin/python" -c 'import json, sys; print([p for line in sys.stdin if (p := json.loads(line).get("executable"))][-1])')
export MODEL_P2P_UNIT_TESTS
. "$lab/env.sh"
exec "$tools/venv/bin/python" -m pytest tests/kubernetes/suite --quiet -p no:cacheprovider \
    --durations=5 --junit-xml=target/kubernetes/junit.xml "$@"
