{{- define "tilecast.name" -}}
{{- if contains "tilecast" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-tilecast{{ end }}
{{- end }}

{{- define "tilecast.selector" -}}
app.kubernetes.io/name: tilecast
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tilecast.labels" -}}
{{ include "tilecast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The host name of server n. */}}
{{- define "tilecast.host" -}}
{{- if gt (int .root.Values.replicas) 1 }}{{ include "tilecast.name" .root }}-{{ .n }}.{{ end }}{{ .root.Values.host }}
{{- end }}
