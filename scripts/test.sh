#!/usr/bin/env bash
# Runs the tests and closes with one line that counts them. `fast` leaves out what takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT

tools=$(scripts/tools.sh)
export MODEL_P2P_TOOLS=$tools

echo '== lint'
cargo fmt --check
cargo clippy --quiet --all-targets --features testing -- --deny warnings
if [ "$mode" = all ]; then
    echo '== licences and advisories of the dependencies'
    scripts/deny.sh
    command -v go >/dev/null || { echo 'missing: Go 1.26, see https://go.dev/dl' >&2; exit 1; }
    echo '== Kubernetes and csi-sanity, where the cache has them not'
    bash tests/kubernetes/lab/build.sh
    . tests/kubernetes/lab/env.sh
fi

echo '== unit, property and conformance tests, then real processes and mounts'
cargo build --quiet --features testing --bins
status=0
MODEL_P2P_SLOW=$([ "$mode" = all ] && echo 1 || echo 0) \
    timeout 2400 cargo test --features testing --no-fail-fast -- --test-threads=2 2>&1 | tee "$log" || status=$?

passed=$(grep -oP '^test result: .*?\K[0-9]+(?= passed)' "$log" | awk '{n += $1} END {print n + 0}')
failed=$(grep -oP '^test result: .*?\K[0-9]+(?= failed)' "$log" | awk '{n += $1} END {print n + 0}')
# A suite that ran nothing is broken, whatever its exit code says.
for suite in $(ls tests/*.rs | xargs -n1 basename -s .rs); do
    if ! grep -A3 "Running tests/$suite.rs" "$log" | grep -qP 'running [1-9]'; then
        echo "suite tests/$suite.rs ran no test" >&2
        status=1
    fi
done
[ "$passed" -gt 0 ] || status=1

if [ "$mode" = all ]; then
    echo '== a real Kubernetes'
    scripts/kubernetes.sh 2>&1 | tee "$log" || status=1
    count() { tail -1 "$log" | grep -oP "[0-9]+(?= $1)" || echo 0; }
    kubernetes=$(count passed)
    [ "$kubernetes" -gt 0 ] || { echo 'the Kubernetes suite ran no test' >&2; status=1; }
    passed=$((passed + kubernetes)) failed=$((failed + $(count failed) + $(count error)))
fi
echo
echo "$passed passed, $failed failed"
exit "$status"
