{{- /* Who an agent may be: the DaemonSet's account, or a host's own account. */ -}}
{{- define "lamina.agents" -}}
- kind: ServiceAccount
  name: {{ include "lamina.fullname" . }}-agent
  namespace: {{ .Release.Namespace }}
- kind: Group
  apiGroup: rbac.authorization.k8s.io
  name: system:serviceaccounts:{{ .Values.hostsNamespace }}
{{- end -}}

{{- /* What an agent sees of its host; what it may write comes after what holds it. */ -}}
{{- define "lamina.hostDirectories" -}}
- { name: etc, path: /etc, type: Directory, readOnly: true }
- { name: etc-units, path: /etc/systemd/system, type: Directory, readOnly: false }
- { name: etc-lamina, path: /etc/lamina, type: DirectoryOrCreate, readOnly: false }
- { name: state, path: /var/lib/lamina, type: DirectoryOrCreate, readOnly: false }
- { name: bus, path: /run/dbus, type: Directory, readOnly: true }
- { name: run-control, path: /run/systemd/system.control, type: DirectoryOrCreate, readOnly: false }
- { name: run-transient, path: /run/systemd/transient, type: DirectoryOrCreate, readOnly: true }
- { name: run-units, path: /run/systemd/system, type: DirectoryOrCreate, readOnly: true }
- { name: run-invocations, path: /run/systemd/units, type: DirectoryOrCreate, readOnly: true }
- { name: cgroup, path: /sys/fs/cgroup, type: Directory, readOnly: true }
{{- range $index, $directory := .Values.agent.programDirectories }}
- { name: programs-{{ $index }}, path: {{ $directory | quote }}, type: DirectoryOrCreate, readOnly: true }
{{- end }}
{{- with .Values.agent.kubeletConfigFile }}
- { name: kubelet-config, path: {{ . | quote }}, type: File, readOnly: true }
{{- end }}
{{- end -}}
