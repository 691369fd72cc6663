{{- define "umbrella.securityContext" -}}
runAsUser: 1000
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "umbrella.container" -}}
name: {{ .name }}
image: registry.example.com/{{ .name }}:1.0.0
resources: { limits: { memory: 64Mi } }
securityContext:
  {{- include "umbrella.securityContext" . | nindent 2 }}
{{- end -}}

{{/* Init containers of both kinds, a preStop sleep that is longer, an fsGroup, a grace period of its own. */}}
{{- define "umbrella.pod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 40
securityContext: { fsGroup: 1000650000 }
initContainers:
  - restartPolicy: Always
    {{- include "umbrella.container" (dict "name" "database-proxy") | nindent 4 }}
  - {{- include "umbrella.container" (dict "name" "migration") | nindent 4 }}
  - restartPolicy: Always
    {{- include "umbrella.container" (dict "name" "log-shipper") | nindent 4 }}
containers:
  - lifecycle: { postStart: { sleep: { seconds: 1 } }, preStop: { sleep: { seconds: 25 } } }
    {{- include "umbrella.container" (dict "name" "app") | nindent 4 }}
  - {{- include "umbrella.container" (dict "name" "cache") | nindent 4 }}
{{- end -}}
