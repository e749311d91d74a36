{{- define "loden.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "loden.labels" -}}
app.kubernetes.io/name: loden
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "loden.secret" -}}
{{ .Values.etcd.existingSecret | default "loden-etcd" }}
{{- end }}

{{/* The environment by which a container finds etcd. */}}
{{- define "loden.etcdEnv" -}}
- name: LODEN_ETCD_ENDPOINTS
{{- if .Values.etcd.own }}
  value: https://$(STORE_SERVICE_HOST):$(STORE_SERVICE_PORT) # kubelet knows the service, DNS is not there yet
{{- else }}
  valueFrom: {secretKeyRef: {name: {{ include "loden.secret" . }}, key: endpoints}}
{{- end }}
{{- if .Values.etcd.own }}
- {name: LODEN_GUARD_PORTS, value: "22379"} # no pod can open a connection to it
- {name: LODEN_ETCD_SERVER_NAME, value: store} # the certificate cannot know the service's address
{{- end }}
{{- if include "loden.tls" . }}
- {name: LODEN_ETCD_CAFILE, value: /etc/loden-etcd/ca.crt}
- {name: LODEN_ETCD_CERTFILE, value: /etc/loden-etcd/client.crt}
- {name: LODEN_ETCD_KEYFILE, value: /etc/loden-etcd/client.key}
{{- end }}
{{- end }}

{{/* Not empty when the containers mount the secret with the certificates for etcd. */}}
{{- define "loden.tls" -}}
{{- if or .Values.etcd.tls .Values.etcd.own }}yes{{ end }}
{{- end }}

{{- define "loden.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end }}
