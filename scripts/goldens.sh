#!/usr/bin/env bash
# Renders the chart: the plain manifests that users apply, and the goldens that its tests compare with.
set -euo pipefail
cd "$(dirname "$0")/.."
bash tests/kubernetes/lab/build.sh
. tests/kubernetes/lab/env.sh
render() { helm template model-p2p deploy/helm/model-p2p --namespace model-p2p "$@"; }
render --set createNamespace=true > deploy/manifests/model-p2p.yaml
for values in tests/kubernetes/suite/golden/*.values.yaml; do
    render -f "$values" > "${values%.values.yaml}.yaml"
done
