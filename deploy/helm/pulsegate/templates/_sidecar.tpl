{{/* The sidecar, as an entry of initContainers. */}}
{{- define "pulsegate.sidecar" -}}
{{- include "pulsegate.checks" . -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
- name: pulsegate
  image: {{ $values.image | quote }}
  {{- with $values.imagePullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  args: ["run", "-c", "/etc/pulsegate/proxy.toml"]
  # Makes it a sidecar: started before the app, ended after it, restarted separately.
  restartPolicy: Always
  ports:
    - name: {{ ternary "http" "https" $values.plain }}
      containerPort: {{ int (ternary $values.ports.http $values.ports.https $values.plain) }}
      protocol: TCP
    # Health and metrics.
    - name: pulsegate
      containerPort: {{ int $values.ports.health }}
      protocol: TCP
  # Not before the proxy listens; it does not depend on the app, which starts after it.
  startupProbe:
    httpGet:
      path: /startupz
      port: {{ int $values.ports.health }}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet:
      path: /livez
      port: {{ int $values.ports.health }}
    periodSeconds: 10
    failureThreshold: 3
  # Fails while the app does not answer, and from the start of a drain.
  readinessProbe:
    httpGet:
      path: /readyz
      port: {{ int $values.ports.health }}
    periodSeconds: 5
    failureThreshold: 2
  # At the same time as the app's sleep: the sessions are closed while the app still runs.
  lifecycle:
    preStop:
      exec:
        command: ["/pulsegate", "drain", "--wait"]
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    runAsNonRoot: true
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: ["ALL"]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    - name: pulsegate-config
      mountPath: /etc/pulsegate
      readOnly: true
    {{- if not $values.plain }}
    - name: pulsegate-tls
      mountPath: /etc/pulsegate-tls
      readOnly: true
    {{- end }}
    # The socket of `drain` and of the other commands.
    - name: pulsegate-run
      mountPath: /run/pulsegate
{{- end -}}

{{/* The volumes of the sidecar, as entries of volumes. The pod needs an fsGroup, with which the sidecar reads the key. */}}
{{- define "pulsegate.volumes" -}}
{{- include "pulsegate.checks" . -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
- name: pulsegate-config
  configMap:
    name: {{ .name }}-pulsegate
{{- if not $values.plain }}
- name: pulsegate-tls
  secret:
    secretName: {{ $values.tlsSecret | default (printf "%s-tls" .name) }}
    defaultMode: 0440
{{- end }}
- name: pulsegate-run
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end -}}

{{/* The port of a Service, as an entry of ports. The target is a number: before 1.31 names of a sidecar's ports are not found. */}}
{{- define "pulsegate.servicePort" -}}
{{- include "pulsegate.checks" . -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
- name: {{ ternary "http" "https" $values.plain }}
  port: {{ ternary 80 443 $values.plain }}
  targetPort: {{ int (ternary $values.ports.http $values.ports.https $values.plain) }}
  protocol: TCP
{{- end -}}
