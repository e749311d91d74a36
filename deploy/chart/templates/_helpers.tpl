{{- define "loden.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "loden.namespace" -}}
{{ .Values.namespace | default .Release.Namespace }}
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
  # kubelet knows the service, DNS is not there yet
  {{- if eq (.Values.etcd.ownFamily | default "IPv4") "IPv6" }}
  value: https://[$(STORE_SERVICE_HOST)]:$(STORE_SERVICE_PORT)
  {{- else }}
  value: https://$(STORE_SERVICE_HOST):$(STORE_SERVICE_PORT)
  {{- end }}
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

{{/* What the daemon works on at the host. */}}
{{- define "loden.mounts" -}}
- {name: run-loden, mountPath: /run/loden}
- {name: run-flannel, mountPath: /run/flannel}
- {name: run-wireguard, mountPath: /run/wireguard}
- {name: xtables-lock, mountPath: /run/xtables.lock}
- {name: state, mountPath: /var/lib/loden}
- {name: cni-conf, mountPath: {{ .Values.cni.confDir }}}
- {name: cni-bin, mountPath: {{ .Values.cni.binDir }}}
- {name: tun, mountPath: /dev/net/tun}
# Pods that the runtime has lost are known by their network namespaces, and detached.
- {name: cni-data, mountPath: /var/lib/cni}
- {name: netns, mountPath: /var/run/netns, readOnly: true, mountPropagation: HostToContainer}
{{- if include "loden.tls" . }}
- {name: etcd, mountPath: /etc/loden-etcd, readOnly: true}
{{- end }}
{{- end }}

{{- define "loden.volumes" -}}
- {name: run-loden, hostPath: {path: /run/loden, type: DirectoryOrCreate}}
- {name: run-flannel, hostPath: {path: /run/flannel, type: DirectoryOrCreate}}
- {name: run-wireguard, hostPath: {path: /run/wireguard, type: DirectoryOrCreate}}
- {name: xtables-lock, hostPath: {path: /run/xtables.lock, type: FileOrCreate}}
- {name: state, hostPath: {path: /var/lib/loden, type: DirectoryOrCreate}}
- {name: cni-conf, hostPath: {path: {{ .Values.cni.confDir }}, type: DirectoryOrCreate}}
- {name: cni-bin, hostPath: {path: {{ .Values.cni.binDir }}, type: DirectoryOrCreate}}
- {name: tun, hostPath: {path: /dev/net/tun, type: CharDevice}}
- {name: cni-data, hostPath: {path: /var/lib/cni, type: DirectoryOrCreate}}
- {name: netns, hostPath: {path: /var/run/netns, type: DirectoryOrCreate}}
{{- if include "loden.tls" . }}
- {name: etcd, secret: {secretName: {{ include "loden.secret" . }}, defaultMode: 0400}}
{{- end }}
{{- end }}
