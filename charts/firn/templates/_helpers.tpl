{{/* The chart's name, or the one asked for. */}}
{{- define "firn.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What the operator's objects are called: firn for a release called firn. */}}
{{- define "firn.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "firn.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "firn.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "firn.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "firn.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is empty: with serviceAccount.create=false, name the account that the operator runs under" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "firn.selectorLabels" -}}
app.kubernetes.io/name: {{ include "firn.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "firn.labels" -}}
{{ include "firn.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Image reference of (dict "image" … "key" … "context" $). A digest wins over a tag. */}}
{{- define "firn.image" -}}
{{- $repository := required (printf "%s.repository is empty: there is no public release of Firn's images yet; push them to a registry of your own and name them here (docs/install.md)" .key) .image.repository }}
{{- if .image.digest }}
{{- printf "%s@%s" $repository .image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .context.Chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{/* The ConfigMap with the CA bundle; empty if there is none. */}}
{{- define "firn.caConfigMap" -}}
{{- with .Values.caBundle }}
{{- if and .pem .configMap }}
{{- fail "caBundle.pem and caBundle.configMap are both set: give the certificates once" }}
{{- end }}
{{- if .pem }}
{{- printf "%s-ca" (include "firn.fullname" $) }}
{{- else }}
{{- .configMap }}
{{- end }}
{{- end }}
{{- end }}

{{/* Rules in the namespaces that are watched. Nothing about Secrets: see secret-reader.yaml. */}}
{{- define "firn.rules" -}}
- apiGroups: [firn.dev]
  resources: [niximages]
  verbs: [get, list, watch, patch]
- apiGroups: [firn.dev]
  resources: [niximagebuilds]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [firn.dev]
  resources: [niximages/status, niximagebuilds/status]
  verbs: [patch]
# Owner references with blockOwnerDeletion need it where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [firn.dev]
  resources: [niximages/finalizers, niximagebuilds/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# The account of build pods: no rights, no token.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create]
# FailedCreate and FailedMount are told nowhere else.
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
