{{/*
A configuration as TOML: each map is a section, each list of maps a section of its own per entry ([[route]]). `toToml` of Helm
would write whole numbers as 25.0, which pulsegate refuses.
*/}}
{{- define "pulsegate.toml" -}}
{{- $sections := list -}}
{{- range $name, $section := .table -}}
{{- if kindIs "slice" $section -}}
{{- range $entry := $section -}}
{{- $sections = append $sections (printf "[[%s]]\n%s" $name (include "pulsegate.tomlLines" $entry)) -}}
{{- end -}}
{{- else -}}
{{- $sections = append $sections (printf "[%s]\n%s" $name (include "pulsegate.tomlLines" $section)) -}}
{{- end -}}
{{- end -}}
{{- join "\n\n" $sections -}}
{{- end -}}

{{- define "pulsegate.tomlLines" -}}
{{- $lines := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $lines = append $lines (printf "%s = %s" $key (include "pulsegate.tomlValue" $value)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}

{{/* Text, numbers and booleans of JSON are the same in TOML. */}}
{{- define "pulsegate.tomlValue" -}}
{{- $values := list -}}
{{- if kindIs "map" . -}}
{{- range $key, $value := . -}}
{{- $values = append $values (printf "%s = %s" $key (include "pulsegate.tomlValue" $value)) -}}
{{- end -}}
{ {{ join ", " $values }} }
{{- else if kindIs "slice" . -}}
{{- range $value := . -}}
{{- $values = append $values (include "pulsegate.tomlValue" $value) -}}
{{- end -}}
[{{ join ", " $values }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}
