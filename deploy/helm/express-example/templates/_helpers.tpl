{{/* The name of the release, at most 50 characters; a longer one ends with a hash, so that no two agree. */}}
{{- define "example.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}
{{- $name = printf "%s-%s" $name .Chart.Name -}}
{{- end -}}
{{- if gt (len $name) 50 -}}
{{- $name = printf "%s-%s" ($name | trunc 41 | trimSuffix "-") ($name | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "example.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "example.labels" -}}
{{ include "example.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* What the templates of the library take. */}}
{{- define "example.pulsegate" -}}
{{- $certificate := .Values.tls.certManager.enabled | or (ne .Values.tls.certificate "") -}}
{{- if and $certificate .Values.pulsegate.plain -}}
{{- fail "tls has a certificate, and pulsegate.plain needs none; remove one of them" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled .Values.tls.certificate -}}
{{- fail "tls.certManager.enabled and tls.certificate are both set; choose one" -}}
{{- end -}}
{{- if ne (empty .Values.tls.certificate) (empty .Values.tls.privateKey) -}}
{{- fail "tls.certificate and tls.privateKey belong together; set both, for example with --set-file" -}}
{{- end -}}
{{- end -}}

{{- define "example.tlsSecret" -}}
{{- .Values.pulsegate.tlsSecret | default (printf "%s-tls" (include "example.fullname" .)) -}}
{{- end -}}

{{/* The pod without pulsegate. */}}
{{- define "example.podSpec" -}}
serviceAccountName: {{ include "example.fullname" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.migration }}
initContainers:
  - name: migration
    image: {{ $.Values.image | quote }}
    command: {{ toJson . }}
    resources:
      {{- toYaml $.Values.resources | nindent 6 }}
    securityContext:
      {{- include "example.securityContext" $ | nindent 6 }}
{{- end }}
containers:
  - name: app
    image: {{ .Values.image | quote }}
    env:
      - name: HOST
        value: {{ ternary "127.0.0.1" "0.0.0.0" .Values.loopback }}
      - name: PORT
        value: "3000"
    {{- if .Values.loopback }}
    # The kubelet does not reach the pod's loopback; a command inside does. pulsegate's /readyz tells whether the app answers.
    livenessProbe:
      exec:
        command:
          - node
          - -e
          - 'fetch("http://127.0.0.1:3000/healthz").then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))'
      periodSeconds: 10
      timeoutSeconds: 5
    {{- else }}
    ports:
      - name: http
        containerPort: 3000
    readinessProbe:
      httpGet:
        path: /healthz
        port: 3000
      periodSeconds: 5
    livenessProbe:
      httpGet:
        path: /healthz
        port: 3000
      periodSeconds: 10
    {{- end }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    securityContext:
      {{- include "example.securityContext" . | nindent 6 }}
{{- end -}}

{{- define "example.securityContext" -}}
runAsUser: 1000
runAsGroup: 1000
runAsNonRoot: true
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
seccompProfile:
  type: RuntimeDefault
{{- end -}}
