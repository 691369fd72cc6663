{{/*
The values of the sidecar, as YAML. Every template of this chart takes a dict:

    root    the context of your chart: $
    name    the name of the ConfigMap, and the beginning of the Secret's; for example the full name of your release
    values  the sidecar's values; $.Values.pulsegate unless given (for an alias of the dependency)
*/}}
{{- define "pulsegate.values" -}}
{{- $values := .values | default .root.Values.pulsegate -}}
{{- if not (kindIs "map" $values) -}}
{{- fail "pulsegate: the values of the sidecar are missing; write them below `pulsegate:`, or pass them as \"values\"" -}}
{{- end -}}
{{- toYaml $values -}}
{{- end -}}

{{/* Fails if the values cannot make a sidecar that works, with the remedy. Every other template calls it. */}}
{{- define "pulsegate.checks" -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
{{- $version := .root.Capabilities.KubeVersion.Version -}}
{{- if not (semverCompare ">=1.30.0-0" $version) -}}
{{- fail (printf "pulsegate: Kubernetes %s has no native sidecars with a preStop sleep; upgrade to 1.30 or later" $version) -}}
{{- end -}}
{{- range $key := list "config" "ports" "resources" -}}
{{- if not (kindIs "map" (get $values $key)) -}}
{{- fail (printf "pulsegate: %s is no map; write keys below it" $key) -}}
{{- end -}}
{{- end -}}
{{- range $section, $keys := $values.config -}}
{{- if not (kindIs (ternary "slice" "map" (eq $section "route")) $keys) -}}
{{- fail (printf "pulsegate: config.%s is no %s; write it as in config/proxy.toml" $section (ternary "list" "map" (eq $section "route"))) -}}
{{- end -}}
{{- end -}}
{{- if not (kindIs "string" $values.image) -}}
{{- fail "pulsegate: image is no text; write one such as registry.example.com/pulsegate:0.1.0" -}}
{{- end -}}
{{- if dig "listen" "address" "" $values.config -}}
{{- fail "pulsegate: config.listen.address is set; set listenOn and ports.https instead, so that probes and Service follow" -}}
{{- end -}}
{{- if dig "admin" "health" "" $values.config -}}
{{- fail "pulsegate: config.admin.health is set; set listenOn and ports.health instead, so that probes follow" -}}
{{- end -}}
{{- if dig "admin" "socket" "" $values.config -}}
{{- fail "pulsegate: config.admin.socket is set; remove it, because `drain` in the preStop hook uses the default" -}}
{{- end -}}
{{- if dig "tls" "mode" "" $values.config -}}
{{- fail "pulsegate: config.tls.mode is set; set plain: true instead, so that ports and volumes follow" -}}
{{- end -}}
{{- if dig "tls" "acme" "" $values.config -}}
{{- fail "pulsegate: config.tls.acme is set; pods cannot share its certificate, so let cert-manager write the Secret" -}}
{{- end -}}
{{- if and $values.plain (not (dig "forwarded" "trusted_proxies" "" $values.config)) -}}
{{- fail "pulsegate: plain is set; name the ingress in config.forwarded.trusted_proxies, such as [\"10.0.0.0/8\"]" -}}
{{- end -}}
{{- end -}}
