{{- define "k3nest.labels" -}}
app.kubernetes.io/name: k3nest
{{- end }}

{{- define "k3nest.selector" -}}
app.kubernetes.io/name: k3nest
app.kubernetes.io/component: operator
{{- end }}
