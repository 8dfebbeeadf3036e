#!/usr/bin/env bash
# podexec.sh ns/pod cmd...: run a host program in a pod's network namespace
. "$(dirname "$0")/env.sh"
p=$1; shift
read -r id node < <(lab kubectl -n ${p%/*} get pod ${p#*/} -o jsonpath='{.status.containerStatuses[0].containerID} {.spec.nodeName}{"\n"}'); n=${node#labnode}
pid=$(labn $n ctr -n k8s.io task ls | awk -v i=${id#containerd://} '$1==i{print $2}')
labn $n nsenter --target $pid --net -- "$@"
