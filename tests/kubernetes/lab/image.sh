#!/usr/bin/env bash
# image.sh NAME:TAG CONTEXT: builds CONTEXT/Dockerfile (FROM scratch) with buildah into $S/images; every node imports what lies there when it starts.
# image.sh base: the images every lab needs (pause, coredns, csi-provisioner, busybox).
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p "$S/images" "$S/img"
B="buildah --root $S/img/storage --runroot $S/img/run --storage-driver vfs"
build(){ local tar=$S/images/$(basename "${1%%:*}").tar; rm -f "$tar"; $B bud --isolation chroot --timestamp 0 -q -t "$1" "$2" >/dev/null; $B push -q "$1" "docker-archive:$tar:$1"; }
one(){ local d; d=$(mktemp -d); cp "$2" "$d/app"; printf 'FROM scratch\nCOPY app /%s\nENTRYPOINT ["/%s"]\n' "$3" "$3" > "$d/Dockerfile"; build "$1" "$d"; rm -rf "$d"; }
if [ "$1" = base ]; then
  one localhost/pause:1 "$BIN/pause" pause
  one localhost/coredns:1 "$BIN/coredns" coredns
  one registry.k8s.io/sig-storage/csi-provisioner:v6.4.0 "$BIN/csi-provisioner" csi-provisioner
  d=$(mktemp -d); mkdir -p "$d/bin"; cp /bin/busybox "$d/bin/"; for a in sh cat ls sleep echo mkdir touch id sha256sum dd stat find head tail cmp grep; do ln -s busybox "$d/bin/$a"; done
  printf 'FROM scratch\nCOPY bin /bin\n' > "$d/Dockerfile"; build localhost/busybox:1 "$d"; rm -rf "$d"
else build "$1" "$2"; fi
