#!/usr/bin/env bash
# init of one node, in its own mount+uts+pid (+net for N>1) namespaces: mounts, CNI, containerd, kubelet, kube-proxy. usage: node.sh N
set -uo pipefail
. "$(dirname "$0")/env.sh"
N=$1; D=$S/node$N; CR=/lab/node$N
hostname $(node_name $N)
mkdir -p $D/{kubelet,cache,varlog/pods,varlog/containers,cni,containerd} $S/logs
mkdir -p /var/lib/model-p2p /var/lib/kubelet /run/containerd /var/log/pods /var/log/containers /var/lib/cni
mount --bind $D/kubelet /var/lib/kubelet && mount --make-rshared /var/lib/kubelet   # before kubelet starts
mount --bind $D/cache /var/lib/model-p2p                                                # a disk of its own for the node
mount -t tmpfs tmpfs /run/containerd; mount -t tmpfs tmpfs /var/lib/cni
mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns; mount --make-rshared /run/netns
mount --bind $D/varlog/pods /var/log/pods; mount --bind $D/varlog/containers /var/log/containers
sysctl -qw net.ipv4.ip_forward=1
find /sys/fs/cgroup/*$CR -depth -type d -exec rmdir {} + 2>/dev/null                      # of a crashed predecessor: cAdvisor spends 3 s on each
for h in /sys/fs/cgroup/*/; do mkdir -p $h$CR; done                                   # kubelet's cgroupRoot must exist
for p in /lab $CR; do for f in cpuset.cpus cpuset.mems; do cat /sys/fs/cgroup/cpuset/$f > /sys/fs/cgroup/cpuset$p/$f; done; done
cat > $D/cni/10-lab.conflist <<K
{"cniVersion":"1.0.0","name":"lab","plugins":[
 {"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipMasq":false,
  "ipam":{"type":"host-local","ranges":[[{"subnet":"$(node_cidr $N)"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
K
cat > $D/containerd.toml <<K
version = 2
root = "$D/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$D/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
K
cat > $D/kubelet.yaml <<K
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $S/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: $CR
cgroupsPerQOS: true
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
tlsCertFile: $S/pki/node$N.crt
tlsPrivateKeyFile: $S/pki/node$N.key
resolvConf: ""
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "50Mi"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
syncFrequency: 10s
K
run(){ local n=$1; shift; "$@" > $S/logs/$n$N.log 2>&1 & echo $! > $D/$n.pid; }
run containerd containerd --config $D/containerd.toml
for i in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.1; done
run kubelet kubelet --config=$D/kubelet.yaml --kubeconfig=$S/pki/node$N.kubeconfig --hostname-override=$(node_name $N) --node-ip=$(node_ip $N) --root-dir=/var/lib/kubelet --v=2 $GATES
run proxy kube-proxy --kubeconfig=$S/pki/proxy.kubeconfig --proxy-mode=${PROXY:-nftables} --cluster-cidr=10.244.0.0/16 --hostname-override=$(node_name $N) \
  --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 --healthz-bind-address=127.0.0.1:10256 --metrics-bind-address=127.0.0.1:10249
for t in $S/images/pause.tar $S/images/*.tar; do ctr -n k8s.io images import "$t"; done > $S/logs/images$N.log 2>&1; touch $D/images.ready
while :; do sleep 3600 & wait $!; done
