#!/usr/bin/env bash
# Checks licences, sources and duplicates of the dependencies with cargo-deny, built once and kept outside
# the tree. Advisories need their database, which a closed network does not have: then that part is skipped
# and said so.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.20.2
root=${DEVTOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/model-p2p-dev}/cargo-deny-$version
if [ ! -x "$root/bin/cargo-deny" ]; then
    cargo install --quiet --locked --version "$version" --root "$root" cargo-deny
fi
"$root/bin/cargo-deny" --all-features check licenses bans sources
if ! "$root/bin/cargo-deny" --all-features check advisories 2>/tmp/deny-advisories.$$; then
    if grep -q 'failed to fetch\|failed to load advisory\|failed to open' "/tmp/deny-advisories.$$"; then
        echo 'advisories: not checked, their database cannot be reached from here'
    else
        cat "/tmp/deny-advisories.$$" >&2
        rm -f "/tmp/deny-advisories.$$"
        exit 1
    fi
fi
rm -f "/tmp/deny-advisories.$$"
