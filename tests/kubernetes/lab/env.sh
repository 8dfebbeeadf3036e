# Sourced by every script of the lab: programs in $BIN, all state below $S.
LAB=${LAB:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}
KUBERNETES=${KUBERNETES:-1.36}                 # the minor version under test: a folder tools/kube-$KUBERNETES
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/model-p2p-lab
# The pinned sums and the compiler are the whole input of a build, so their hash names its result.
digest() { (cat "$@"; go version) | sha256sum | cut -c1-16; }
KUBE=$CACHE/kube-$KUBERNETES-$(digest "$LAB"/tools/kube-"$KUBERNETES"/go.* "$LAB"/tools/kube.go)
OTHERS=$CACHE/others-$(digest "$LAB"/tools/{dns,etcd,helm,provisioner,sanity}/go.* "$LAB"/tools/dns/main.go "$LAB"/pause.c)
S=${S:-$CACHE/state}
NODES=${NODES:-2}
# Alpha there: volume health as pods and claims show it.
GATES=; [ "$KUBERNETES" = 1.37 ] && GATES=--feature-gates=CSIVolumeHealth=true
node_name() { echo "labnode$1"; }
node_ip() { echo "198.51.100.$((1 + $1))"; }   # TEST-NET-2: exists only inside the lab's network namespace
node_cidr() { echo "10.244.$1.0/24"; }
SVC_CIDR=10.96.0.0/24 DNS_IP=10.96.0.10 API=https://$(node_ip 1):6443
export KUBERNETES S KUBECONFIG=$S/pki/admin.kubeconfig PATH=$KUBE:$OTHERS:$PATH
enter() { nsenter --target "$1" --mount --uts --net --pid --wd=. -- "${@:2}"; }
lab() { enter "$(cat "$S/init.pid")" "$@"; }   # the control plane's side: network of node 1, no kubelet mounts
labn() { enter "$(cat "$S/node$1.hostpid")" "${@:2}"; }   # node N: its kubelet mounts, containerd and network
