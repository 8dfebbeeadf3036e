#!/usr/bin/env bash
set -euo pipefail
. "$(dirname "$0")/env.sh"
mkdir -p $S/pki; cd $S/pki
[ -f done ] && exit 0
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -subj /CN=lab-ca -days 3650 -out ca.crt
mk(){ # file CN O SAN
  openssl ecparam -name prime256v1 -genkey -noout -out $1.key
  openssl req -new -key $1.key -subj "/O=$3/CN=$2" -out $1.csr
  printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${4:+subjectAltName=$4}" > $1.ext
  openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile $1.ext -out $1.crt 2>/dev/null
}
mk apiserver kube-apiserver kube "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:10.96.0.1,IP:$(node_ip 1)"
mk admin admin system:masters ""
mk kcm system:kube-controller-manager lab ""
mk sched system:kube-scheduler lab ""
mk proxy system:kube-proxy lab ""
for n in 1 2 3; do mk node$n system:node:$(node_name $n) system:nodes "DNS:$(node_name $n),IP:$(node_ip $n)"; done
mk hub hub lab "IP:$(node_ip 1)"                       # a model hub behind a private CA
mk apikubelet kube-apiserver-kubelet system:masters ""
openssl genrsa -out sa.key 2048 2>/dev/null; openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
for n in admin kcm sched proxy node1 node2 node3; do cat > $n.kubeconfig <<K
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "$API", certificate-authority: $S/pki/ca.crt}}]
users: [{name: u, user: {client-certificate: $S/pki/$n.crt, client-key: $S/pki/$n.key}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
K
done
touch done
