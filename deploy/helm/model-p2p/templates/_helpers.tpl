{{- define "name" -}}model-p2p{{- end -}}

{{/* Fixed: kubelet, volumes and pods in the cluster hold on to it. */}}
{{- define "driver" -}}csi.model-p2p.dev{{- end -}}

{{- define "image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "role" "seed") */}}
{{- define "selector" -}}
app.kubernetes.io/name: model-p2p
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "pluginDir" -}}{{ .Values.kubeletPath }}/plugins/{{ include "driver" . }}{{- end -}}

{{/* Every seed by the name it keeps. */}}
{{- define "seedArgs" -}}
{{- range $i := until (int .Values.seed.replicas) }}
- --seed=model-p2p-seed-{{ $i }}.model-p2p-seed.{{ $.Release.Namespace }}.svc:7440
{{- end }}
{{- end -}}

{{/* What every container of ours gets. */}}
{{- define "env" -}}
- {name: RUST_LOG, value: {{ .root.Values.logLevel | quote }}}
- {name: MODEL_P2P_LOG_FORMAT, value: {{ .root.Values.logFormat | quote }}}
{{- with .extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A container that may do nothing but compute and talk. */}}
{{- define "restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "nonRoot" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "probes" -}}
startupProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 1
  failureThreshold: 300
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- end -}}

{{- define "placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
