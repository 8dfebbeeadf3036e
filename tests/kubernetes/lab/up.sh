#!/usr/bin/env bash
# Starts the cluster and waits until it serves. NODES=1..3 (2), KUBERNETES=1.36|1.37.
set -euo pipefail
. "$(dirname "$0")/env.sh"
if [ -e "$S/init.pid" ] && kill -0 "$(cat "$S/init.pid")" 2>/dev/null; then bash "$LAB/down.sh" >/dev/null; fi
mkdir -p "$S/images" "$S/logs"
rm -rf "$S"/etcd "$S"/node[0-9] "$S"/ready "$S"/*.pid "$S"/*.hostpid
bash "$LAB/certs.sh"
wc -l < /proc/self/mountinfo > "$S/mounts.before"
setsid unshare --mount --propagation private --net --uts --pid --fork --kill-child --mount-proc \
    bash "$LAB/inside.sh" > "$S/inside.log" 2>&1 < /dev/null &
U=$!
for _ in $(seq 100); do I=$(pgrep -P $U || true); [ -n "$I" ] && break; sleep 0.05; done
echo "$U" > "$S/unshare.pid"
echo "$I" > "$S/init.pid"
for _ in $(seq "${TIMEOUT:-180}"); do
    [ -e "$S/ready" ] && break
    kill -0 $U 2>/dev/null || { cat "$S/inside.log" >&2; exit 1; }
    sleep 1
done
[ -e "$S/ready" ] || { echo "the cluster is not ready" >&2; cat "$S/timeline" >&2; exit 1; }
for n in $(seq "$NODES"); do bash "$LAB/node-ctl.sh" pid "$n"; done
cat "$S/timeline"
