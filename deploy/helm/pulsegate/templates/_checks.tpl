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
{{- range $key := list "certificate" "private_key" -}}
{{- if dig "tls" $key "" $values.config -}}
{{- fail (printf "pulsegate: config.tls.%s is set; remove it and name the Secret in tlsSecret, so that the volume follows" $key) -}}
{{- end -}}
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
{{- include "pulsegate.addressChecks" (dict "values" $values) -}}
{{- $held := include "pulsegate.bytes" (dig "limits" "memory" "" $values.config) | float64 -}}
{{- $limit := ($values.resources.limits | default dict).memory | default "" -}}
{{- $most := include "pulsegate.bytes" $limit | float64 -}}
{{- if and (gt $most 0.0) (lt $most (addf $held 33554432)) -}}
{{- fail (printf "pulsegate: resources.limits.memory is %v, and pulsegate takes 32 MiB beside config.limits.memory (%v); raise the one, or lower the other" $limit (dig "limits" "memory" "" $values.config)) -}}
{{- end -}}
{{- end -}}

{{/* Bytes in a size of Kubernetes or of the configuration, such as 256Mi or "128 MiB"; 0 for one that is neither. */}}
{{- define "pulsegate.bytes" -}}
{{- $text := regexReplaceAll "(?i)b$" (ternary (toString .) (int64 (. | default 0) | toString) (kindIs "string" .)) "" -}}
{{- $powers := dict "" 1 "K" 1000 "Ki" 1024 "M" 1000000 "Mi" 1048576 "G" 1000000000 "Gi" 1073741824 "T" 1000000000000 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text | lower | title -}}
{{- $number := regexFind "^[0-9]+(?:\\.[0-9]+)?" $text -}}
{{- if and (regexMatch "^[0-9]+(?:\\.[0-9]+)?\\s*[A-Za-z]*$" $text) (hasKey $powers $unit) -}}
{{- mulf (float64 $number) (get $powers $unit) -}}
{{- else -}}
0
{{- end -}}
{{- end -}}

{{/* The ports on which the sidecar listens, by the key that sets each, as YAML; a dict with `values`. */}}
{{- define "pulsegate.ownPorts" -}}
{{- $client := ternary "http" "https" .values.plain -}}
{{- $own := dict (printf "ports.%s" $client) (int (get .values.ports $client)) "ports.health" (int .values.ports.health) -}}
{{- $redirect := dig "listen" "redirect" "" .values.config | default "off" -}}
{{- if ne $redirect "off" -}}
{{- $_ := set $own "config.listen.redirect" (regexFind "[0-9]+$" $redirect | int) -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{/* Fails if two of the sidecar's ports are the same, or an address of the app is none that the sidecar reaches. */}}
{{- define "pulsegate.addressChecks" -}}
{{- $own := include "pulsegate.ownPorts" . | fromYaml -}}
{{- range $key, $port := $own -}}
{{- range $other, $same := $own -}}
{{- if and (lt $key $other) (eq (int $port) (int $same)) -}}
{{- fail (printf "pulsegate: %s and %s are both %d; set one of them to another port" $key $other (int $port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $urls := dict "config.upstream.url" (dig "upstream" "url" "" .values.config) -}}
{{- range $index, $route := .values.config.route -}}
{{- $upstream := $route.upstream | default "" -}}
{{- if kindIs "map" $upstream -}}
{{- $upstream = $upstream.url -}}
{{- end -}}
{{- $_ := set $urls (printf "config.route[%d].upstream" $index) $upstream -}}
{{- end -}}
{{- range $key, $url := $urls -}}
{{- $url = toString ($url | default "") -}}
{{- if hasPrefix "unix:" $url -}}
{{- fail (printf "pulsegate: %s is a unix socket, which belongs to the app's container; write the port of the app, such as \"http://127.0.0.1:3000\"" $key) -}}
{{- end -}}
{{- if regexMatch "^https?://(localhost|127\\.[0-9.]+|\\[::1\\]):[0-9]+/?$" $url -}}
{{- $port := trimSuffix "/" $url | regexFind "[0-9]+$" | int -}}
{{- range $name, $taken := $own -}}
{{- if eq $port (int $taken) -}}
{{- fail (printf "pulsegate: %s is %s, but pulsegate itself listens on this port (%s); write the port of the app, or set another port" $key $url $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
