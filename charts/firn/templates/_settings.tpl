{{/*
The operator's settings, as environment variables. Names and formats: operator/src/settings.rs.
What is empty is left out: the operator's own default applies.
*/}}
{{- define "firn.env" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- with .Values.watchNamespaces }}
- name: FIRN_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
- name: FIRN_LOG
  value: {{ .Values.log.level | quote }}
- name: FIRN_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: FIRN_BUILDER_IMAGE
  value: {{ include "firn.image" (dict "image" .Values.builder.image "key" "builder.image" "context" .) | quote }}
{{- with .Values.builder.imagePullSecrets }}
- name: FIRN_BUILDER_PULL_SECRETS
  value: {{ join "," . | quote }}
{{- end }}
# An empty quantity means that none is set.
{{- $requests := default dict .Values.defaults.resources.requests }}
{{- $limits := default dict .Values.defaults.resources.limits }}
- name: FIRN_BUILD_CPU_REQUEST
  value: {{ default "" $requests.cpu | toString | quote }}
- name: FIRN_BUILD_MEMORY_REQUEST
  value: {{ default "" $requests.memory | toString | quote }}
- name: FIRN_BUILD_CPU_LIMIT
  value: {{ default "" $limits.cpu | toString | quote }}
- name: FIRN_BUILD_MEMORY_LIMIT
  value: {{ default "" $limits.memory | toString | quote }}
- name: FIRN_JOB_RETENTION
  value: {{ .Values.defaults.jobRetention }}
- name: FIRN_SUBSTITUTERS
  value: {{ join "," .Values.defaults.substituters | quote }}
- name: FIRN_TRUSTED_PUBLIC_KEYS
  value: {{ join "," .Values.defaults.trustedPublicKeys | quote }}
{{- with .Values.allowed.substituters }}
- name: FIRN_ALLOWED_SUBSTITUTERS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.allowed.trustedPublicKeys }}
- name: FIRN_ALLOWED_PUBLIC_KEYS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.allowed.plainHTTP }}
- name: FIRN_PLAIN_HTTP_HOSTS
  value: {{ join "," . | quote }}
{{- end }}
- name: FIRN_MAX_CONCURRENT_BUILDS
  value: {{ .Values.limits.maxConcurrentBuilds | int | quote }}
- name: FIRN_MAX_CONCURRENT_BUILDS_PER_NAMESPACE
  value: {{ .Values.limits.maxConcurrentBuildsPerNamespace | int | quote }}
{{- if .Values.webhooks.enabled }}
- name: FIRN_WEBHOOK_LISTEN
  value: "[::]:8081"
{{- end }}
{{- if include "firn.caConfigMap" . }}
- name: FIRN_CA_FILE
  value: /firn/ca/cluster/ca.crt
{{- end }}
{{- with .Values.proxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .Values.proxy.http .Values.proxy.https }}
# The API server is never asked through the proxy.
- name: NO_PROXY
  value: {{ compact (list .Values.proxy.noProxy "$(KUBERNETES_SERVICE_HOST)") | join "," | quote }}
{{- end }}
{{- end }}
