#!/usr/bin/env bash
# One SIGKILL: the pid namespace takes every process with it; mounts and network vanish with the last of them.
# Fails when anything is left.
. "$(dirname "$0")/env.sh"
[ -e "$S/init.pid" ] || exit 0
I=$(cat "$S/init.pid") U=$(cat "$S/unshare.pid")
kill -9 "$I" 2>/dev/null
for _ in $(seq 100); do kill -0 "$U" 2>/dev/null || break; sleep 0.1; done
left() { find /sys/fs/cgroup -type d \( -path '/sys/fs/cgroup/*/lab' -o -path '*/lab/*' -o -path '/sys/fs/cgroup/*/k8s.io*' \); }
for _ in $(seq 50); do
    left | sort -r | while read -r d; do rmdir "$d" 2>/dev/null; done
    [ -z "$(left)" ] && break
    sleep 0.1
done
before=$(cat "$S/mounts.before") now=$(wc -l < /proc/self/mountinfo) cgroups=$(left | wc -l)
rm -f "$S"/*.pid "$S"/*.hostpid "$S/ready"
[ "${KEEP:-0}" = 1 ] || rm -rf "$S/etcd" "$S"/node[0-9]
echo "down: mounts $before before, $now now; $cgroups cgroups left"
[ "$now" -le "$before" ] && [ "$cgroups" = 0 ] && ! kill -0 "$U" 2>/dev/null
