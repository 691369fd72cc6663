{{/* The text of proxy.toml. */}}
{{- define "pulsegate.config" -}}
{{- include "pulsegate.checks" . -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
{{- $listen := dict "address" (printf "%s:%d" $values.listenOn (int (ternary $values.ports.http $values.ports.https $values.plain))) -}}
{{- $tls := dict "certificate" "/etc/pulsegate-tls/tls.crt" "private_key" "/etc/pulsegate-tls/tls.key" -}}
{{- if $values.plain -}}
{{- $tls = dict "mode" "off" -}}
{{- end -}}
{{- $ours := dict "listen" $listen "tls" $tls "admin" (dict "health" (printf "%s:%d" $values.listenOn (int $values.ports.health))) -}}
{{- include "pulsegate.toml" (dict "table" (mergeOverwrite $ours $values.config) "path" "") -}}
{{- end -}}

{{/* The ConfigMap of the sidecar; `labels` are added to it. */}}
{{- define "pulsegate.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}-pulsegate
  {{- with .labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  proxy.toml: |
    {{- include "pulsegate.config" . | nindent 4 }}
{{- end -}}
