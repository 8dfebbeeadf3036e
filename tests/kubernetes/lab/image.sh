#!/usr/bin/env bash
# Builds the images that every cluster needs, FROM scratch, into $S/images; each node imports what lies there.
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p "$S/images" "$S/img"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
b=(buildah --root "$S/img/storage" --runroot "$S/img/run" --storage-driver vfs)

build() { # NAME:TAG, from $context
    local archive=$S/images/$(basename "${1%%:*}").tar
    rm -f "$archive"
    "${b[@]}" bud --isolation chroot --timestamp 0 --quiet --tag "$1" "$context" >/dev/null
    "${b[@]}" push --quiet "$1" "docker-archive:$archive:$1"
    rm -rf "${context:?}"/*
}
program() { # NAME:TAG PROGRAM
    cp "$OTHERS/$2" "$context/$2"
    printf 'FROM scratch\nCOPY %s /%s\nENTRYPOINT ["/%s"]\n' "$2" "$2" "$2" > "$context/Dockerfile"
    build "$1"
}
program localhost/pause:1 pause
program localhost/coredns:1 coredns
program registry.k8s.io/sig-storage/csi-provisioner:v6.4.0 csi-provisioner
mkdir "$context/bin"
cp /bin/busybox "$context/bin/"
for applet in sh cat ls sleep echo mkdir touch id sha256sum dd stat find head tail cmp grep true seq mkfifo; do
    ln -s busybox "$context/bin/$applet"
done
printf 'FROM scratch\nCOPY bin /bin\nENV PATH=/bin\n' > "$context/Dockerfile"
build localhost/busybox:1
