{{/* Milliseconds in a duration such as "1m 30s": a dict with `key`, for the error, and `text`. */}}
{{- define "pulsegate.milliseconds" -}}
{{- $units := dict -}}
{{- range $each := list (list 0.000001 "ns" "nsec" "nanos") (list 0.001 "us" "usec" "µs") (list 1 "ms" "msec" "millis")
      (list 1000 "s" "sec" "secs" "second" "seconds") (list 60000 "m" "min" "mins" "minute" "minutes")
      (list 3600000 "h" "hr" "hrs" "hour" "hours") (list 86400000 "d" "day" "days")
      (list 604800000 "w" "wk" "wks" "week" "weeks") -}}
{{- range $unit := rest $each -}}
{{- $_ := set $units $unit (first $each) -}}
{{- end -}}
{{- end -}}
{{- $parts := regexFindAll "[0-9]+(?:\\.[0-9]+)?\\s*[a-zA-Zµ]+" (toString .text) -1 -}}
{{- $rest := regexReplaceAll "[0-9]+(?:\\.[0-9]+)?\\s*[a-zA-Zµ]+" (toString .text) "" | trim -}}
{{- $sum := 0.0 -}}
{{- range $part := $parts -}}
{{- $unit := regexFind "[a-zA-Zµ]+$" $part -}}
{{- if not (hasKey $units $unit) -}}
{{- $rest = $part -}}
{{- else -}}
{{- $sum = addf $sum (mulf (trimSuffix $unit $part | trim | float64) (get $units $unit)) -}}
{{- end -}}
{{- end -}}
{{- if and (ne (toString .text) "0") (or $rest (not $parts)) -}}
{{- fail (printf "pulsegate: config.%s is %q, and no duration; write one such as \"15s\"" .key (toString .text)) -}}
{{- end -}}
{{- if and (gt $sum 0.0) (lt $sum 1.0) -}}
{{- fail (printf "pulsegate: config.%s is %q, which is too short; write \"1ms\" or more" .key (toString .text)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/*
Seconds that a drain takes at most, rounded up: delay, window, the longest close_grace, and 5 s that pulsegate adds. It is what
`pulsegate check` prints as "ends within". The app must live as long.
*/}}
{{- define "pulsegate.drainSeconds" -}}
{{- $config := (include "pulsegate.values" . | fromYaml).config -}}
{{- $delay := include "pulsegate.milliseconds" (dict "key" "drain.delay" "text" (dig "drain" "delay" "5s" $config)) -}}
{{- $window := include "pulsegate.milliseconds" (dict "key" "drain.window" "text" (dig "drain" "window" "15s" $config)) -}}
{{- $grace := include "pulsegate.milliseconds" (dict "key" "heartbeat.close_grace" "text" (dig "heartbeat" "close_grace" "2s" $config)) -}}
{{- range $route := $config.route -}}
{{- $own := dig "heartbeat" "close_grace" "0" $route -}}
{{- $grace = maxf $grace (include "pulsegate.milliseconds" (dict "key" "route.heartbeat.close_grace" "text" $own)) -}}
{{- end -}}
{{- divf (addf $delay $window $grace 5000) 1000 | ceil | int -}}
{{- end -}}

{{/* The lifecycle of a container of the app: it sleeps while the sessions are closed. */}}
{{- define "pulsegate.appLifecycle" -}}
preStop:
  sleep:
    seconds: {{ include "pulsegate.drainSeconds" . }}
{{- end -}}

{{/*
The pod's grace period: the drain, and then the app's own end. `app` is the app's grace period without pulsegate, 30 s if not
given. Fails if terminationGracePeriodSeconds of the values is too short.
*/}}
{{- define "pulsegate.gracePeriod" -}}
{{- $values := include "pulsegate.values" . | fromYaml -}}
{{- $drain := include "pulsegate.drainSeconds" . | int -}}
{{- $total := $values.terminationGracePeriodSeconds -}}
{{- $app := int (ternary 30 .app (kindIs "invalid" .app)) -}}
{{- if kindIs "invalid" $total -}}
{{- add $drain $app -}}
{{- else -}}
{{- $least := add $drain (ternary $app 1 (hasKey . "app")) -}}
{{- if lt (int $total) (int $least) -}}
{{- fail (printf "pulsegate: terminationGracePeriodSeconds is %d, but the drain takes %d s and the app needs time to end; set %d or more, or shorten config.drain.window" (int $total) $drain (add $drain $app)) -}}
{{- end -}}
{{- int $total -}}
{{- end -}}
{{- end -}}
