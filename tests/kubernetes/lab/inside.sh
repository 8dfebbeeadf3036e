#!/usr/bin/env bash
# PID 1 of the lab: network, control plane, node 1, further nodes as child namespaces. Everything dies with it.
set -uo pipefail
. "$(dirname "$0")/env.sh"
T0=$(date +%s.%N); mark(){ printf '%7.2f s  %s\n' "$(awk "BEGIN{print $(date +%s.%N)-$T0}")" "$*" >> $S/timeline; }
: > $S/timeline; mkdir -p $S/{logs,etcd}
ip link set lo up                                    # no 'dummy' device in this kernel: bridge + veth
ip link add br0 type bridge; ip link add p0 type veth peer name p1; ip link set p1 master br0; ip link set p0 up; ip link set p1 up
ip addr add $(node_ip 1)/24 dev br0; ip link set br0 up; ip route add default via 198.51.100.254 dev br0 onlink
mkdir -p $S/netns; touch $S/netns/1; mount --bind /proc/self/ns/net $S/netns/1
for n in $(seq 2 $NODES); do
  touch $S/netns/$n; unshare --net=$S/netns/$n true
  ip link add v$n type veth peer name e$n; ip link set v$n master br0 up; ip link set e$n netns $S/netns/$n
  nsenter --net=$S/netns/$n bash -c "ip link set lo up; ip link set e$n name eth0; ip addr add $(node_ip $n)/24 dev eth0; ip link set eth0 up; ip route add default via $(node_ip 1)
    for m in $(seq -s ' ' 2 $NODES); do [ \$m = $n ] || ip route add 10.244.\$m.0/24 via 198.51.100.\$((1 + m)); done"
  ip route add $(node_cidr $n) via $(node_ip $n)
done
cd $S/pki; run(){ local n=$1; shift; "$@" > $S/logs/$n.log 2>&1 & echo $! > $S/$n.pid; }
run etcd etcd --data-dir $S/etcd --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn
run apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 --advertise-address=$(node_ip 1) \
  --service-cluster-ip-range=$SVC_CIDR --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --client-ca-file=ca.crt --tls-cert-file=apiserver.crt --tls-private-key-file=apiserver.key \
  --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --kubelet-client-certificate=apikubelet.crt --kubelet-client-key=apikubelet.key --kubelet-preferred-address-types=InternalIP --v=1 $GATES
for n in $(seq $NODES); do bash $LAB/node-ctl.sh start $n; done
for i in $(seq 600); do kubectl get --raw=/readyz >/dev/null 2>&1 && break; sleep 0.2; done; mark "apiserver ready"
run kcm kube-controller-manager --kubeconfig=kcm.kubeconfig --authentication-kubeconfig=kcm.kubeconfig --authorization-kubeconfig=kcm.kubeconfig \
  --root-ca-file=ca.crt --service-account-private-key-file=sa.key --use-service-account-credentials=true --bind-address=127.0.0.1 --leader-elect=false
run sched kube-scheduler --kubeconfig=sched.kubeconfig --authentication-kubeconfig=sched.kubeconfig --authorization-kubeconfig=sched.kubeconfig --bind-address=127.0.0.1 --leader-elect=false
for i in $(seq 600); do [ "$(kubectl get nodes --no-headers 2>/dev/null | grep -c ' Ready ')" = $NODES ] && break; sleep 0.2; done; mark "$NODES node(s) Ready"
for i in $(seq 100); do kubectl get sa default >/dev/null 2>&1 && break; sleep 0.1; done; mark "default ServiceAccount"
for n in $(seq $NODES); do while [ ! -e $S/node$n/images.ready ]; do sleep 0.1; done; done; mark "images imported"
[ -e $S/images/coredns.tar ] && { kubectl apply -f $LAB/dns.yaml > $S/logs/dns.log 2>&1; kubectl -n kube-system rollout status deploy/coredns --timeout=60s >> $S/logs/dns.log 2>&1; mark "CoreDNS ready"; }
touch $S/ready
while :; do sleep 3600 & wait $!; done
