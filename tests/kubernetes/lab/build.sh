#!/usr/bin/env bash
# Builds Kubernetes and its neighbours from their pinned Go modules into the cache; nothing to do when they are there.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# A build directory becomes the cached one in one rename: an interrupted build leaves nothing half done.
build() { # OUTPUT MODULE-DIR PACKAGE [LINKER FLAGS]
    (cd "$2" && CGO_ENABLED=0 go build -mod=readonly -buildvcs=false -trimpath -ldflags "-s -w ${4:-}" -o "$1" "$3")
}
others() {
    local tools=$LAB/tools
    build "$1/coredns" "$tools/dns" .
    build "$1/etcd" "$tools/etcd" go.etcd.io/etcd/server/v3
    build "$1/csi-sanity" "$tools/sanity" github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity
    build "$1/csi-provisioner" "$tools/provisioner" github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner
    build "$1/helm" "$tools/helm" helm.sh/helm/v4/cmd/helm
    gcc -static -Os -s -o "$1/pause" "$LAB/pause.c"
}
kube() {
    local module=$1.module version
    mkdir -p "$module" && cp "$LAB/tools/kube-$KUBERNETES"/go.* "$module/" && cp "$LAB/tools/kube.go" "$module/main.go"
    version=$(awk '$1 == "k8s.io/kubernetes" {print $2}' "$module/go.mod")
    local at=k8s.io/component-base/version
    build "$1/kube" "$module" . "-X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${KUBERNETES#1.}"
    for c in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do ln -s kube "$1/$c"; done
    rm -rf "$module"
}
once() { # DIRECTORY FUNCTION
    [ -e "$1" ] && return
    local fresh=$1.$$
    mkdir -p "$fresh"
    "$2" "$fresh"
    mv -T "$fresh" "$1"
}
once "$OTHERS" others
once "$KUBE" kube
