{{/*
A pod's spec with the sidecar in it: `spec` is the one without, as a dict. The sidecar stands behind the init containers that
end; every container of the app sleeps through the drain, but for those whose own hook keepPreStop keeps; the grace period
covers the drain and the app's own.
*/}}
{{- define "pulsegate.podSpec" -}}
{{- include "pulsegate.checks" . -}}
{{- include "pulsegate.podChecks" . -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
{{- $spec := deepCopy .spec -}}

{{- $before := 0 -}}
{{- range $index, $container := $spec.initContainers -}}
{{- if ne (toString $container.restartPolicy) "Always" -}}
{{- $before = add1 $index | int -}}
{{- end -}}
{{- end -}}
{{- $inits := list -}}
{{- $sidecar := include "pulsegate.sidecar" . | fromYamlArray | first -}}
{{- range $index, $container := $spec.initContainers -}}
{{- if eq $index $before -}}
{{- $inits = append $inits $sidecar -}}
{{- end -}}
{{- $inits = append $inits $container -}}
{{- end -}}
{{- if eq (len $inits) $before -}}
{{- $inits = append $inits $sidecar -}}
{{- end -}}
{{- $_ := set $spec "initContainers" $inits -}}

{{- $seconds := include "pulsegate.drainSeconds" . | int -}}
{{- range $container := $spec.containers -}}
{{- $lifecycle := $container.lifecycle | default dict -}}
{{- $hook := $lifecycle.preStop | default dict -}}
{{- if not (or $hook.exec $hook.httpGet $hook.tcpSocket) -}}
{{- $own := ($hook.sleep | default dict).seconds | default 0 | int -}}
{{- $_ := set $lifecycle "preStop" (dict "sleep" (dict "seconds" (max $own $seconds))) -}}
{{- $_ := set $container "lifecycle" $lifecycle -}}
{{- end -}}
{{- end -}}
{{- $context := pick . "root" "name" "values" -}}
{{- if not (kindIs "invalid" $spec.terminationGracePeriodSeconds) -}}
{{- $_ := set $context "app" (int $spec.terminationGracePeriodSeconds) -}}
{{- end -}}
{{- $_ := set $spec "terminationGracePeriodSeconds" (include "pulsegate.gracePeriod" $context | int) -}}

{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) (include "pulsegate.volumes" . | fromYamlArray)) -}}
{{- $security := $spec.securityContext | default dict -}}
{{- if kindIs "invalid" $security.fsGroup -}}
{{- $_ := set $security "fsGroup" 65532 -}}
{{- end -}}
{{- $_ := set $spec "securityContext" $security -}}
{{- toYaml $spec -}}
{{- end -}}

{{/* Fails if the pod's spec cannot take the sidecar. */}}
{{- define "pulsegate.podChecks" -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
{{- if not (kindIs "map" .spec) -}}
{{- fail "pulsegate: spec is no map; pass the pod's spec, such as (include \"app.podSpec\" . | fromYaml)" -}}
{{- end -}}
{{- with .spec.Error -}}
{{- fail (printf "pulsegate: the pod's spec is no YAML: %s" .) -}}
{{- end -}}
{{- if not .spec.containers -}}
{{- fail "pulsegate: the pod's spec has no containers; pass the whole spec of the pod" -}}
{{- end -}}
{{- if .spec.hostNetwork -}}
{{- fail "pulsegate: the pod's spec has hostNetwork: true, where the sidecar's ports would be the node's; remove it" -}}
{{- end -}}
{{- $taken := include "pulsegate.ownPorts" (dict "values" $values) | fromYaml -}}
{{- range $container := concat .spec.containers (.spec.initContainers | default list) -}}
{{- if eq $container.name "pulsegate" -}}
{{- fail "pulsegate: the pod's spec has a container named pulsegate already; remove it" -}}
{{- end -}}
{{- range $port := $container.ports -}}
{{- range $key, $own := $taken -}}
{{- if and (eq (int $port.containerPort) (int $own)) (eq ($port.protocol | default "TCP") "TCP") -}}
{{- fail (printf "pulsegate: port %d belongs to container %s; set %s to another" (int $own) $container.name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $volume := .spec.volumes -}}
{{- if has $volume.name (list "pulsegate-config" "pulsegate-tls" "pulsegate-run") -}}
{{- fail (printf "pulsegate: the pod's spec has a volume named %s already; remove it" $volume.name) -}}
{{- end -}}
{{- end -}}
{{- if not $values.keepPreStop -}}
{{- range $container := .spec.containers -}}
{{- $hook := ($container.lifecycle | default dict).preStop | default dict -}}
{{- if or $hook.exec $hook.httpGet $hook.tcpSocket -}}
{{- $seconds := include "pulsegate.drainSeconds" $ -}}
{{- fail (printf "pulsegate: container %s has a preStop hook of its own; let it last %s s, which the drain takes, and set keepPreStop: true" $container.name $seconds) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
