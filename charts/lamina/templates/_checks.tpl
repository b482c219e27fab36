{{- /* What the schema cannot say about an installation, or not in words. */ -}}
{{- define "lamina.checks" -}}
{{- include "lamina.checkNamespaces" . -}}
{{- include "lamina.checkLabels" . -}}
{{- include "lamina.checkDirectories" . -}}
{{- include "lamina.checkMonitors" . -}}
{{- include "lamina.checkTeardown" . -}}
{{- end -}}

{{- define "lamina.checkNamespaces" -}}
{{- $namespace := .Release.Namespace -}}
{{- if eq .Values.hostsNamespace $namespace -}}
{{- fail (printf "hostsNamespace is %q, the release's own namespace, whose accounts would all become hosts; name a namespace that holds nothing else" $namespace) -}}
{{- end -}}
{{- $level := include "lamina.podSecurityLevel" . -}}
{{- if and $level (ne $level "privileged") -}}
{{- fail (printf "namespace %s enforces the pod security level %q, under which no agent reaches its host; allow it: kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=privileged" $namespace $level $namespace) -}}
{{- end -}}
{{- end -}}

{{- /* The level that the release's namespace itself asks for; empty if it is not there yet or leaves it to the cluster. */ -}}
{{- define "lamina.podSecurityLevel" -}}
{{- $labels := dig "metadata" "labels" (dict) (lookup "v1" "Namespace" "" .Release.Namespace) -}}
{{- get $labels "pod-security.kubernetes.io/enforce" -}}
{{- end -}}

{{- define "lamina.checkLabels" -}}
{{- $own := include "lamina.ownLabels" (dict "root" . "component" "any") | fromYaml -}}
{{- $given := dict "commonLabels" .Values.commonLabels "operator.podLabels" .Values.operator.podLabels "agent.podLabels" .Values.agent.podLabels -}}
{{- range $value, $labels := $given -}}
{{- range $key, $ignored := $labels -}}
{{- if hasKey $own $key -}}
{{- fail (printf "%s sets the label %s, which the chart sets itself; take another key" $value $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A read-only mount leaves the mounts below it writable, and a path cannot be mounted twice. */ -}}
{{- define "lamina.checkDirectories" -}}
{{- range .Values.agent.programDirectories -}}
{{- if regexMatch "^/var$|^/(boot|dev|etc|proc|run|sys)(/|$)" . -}}
{{- fail (printf "agent.programDirectories names %s, where the system itself has mounts, which the agent could then write; name directories that hold programs only" .) -}}
{{- end -}}
{{- if regexMatch "/\\.\\.?(/|$)" . -}}
{{- fail (printf "agent.programDirectories names %s; write the path without . and .." .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lamina.checkMonitors" -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor are both on, so that everything would be counted twice; switch one of them off: --set monitoring.serviceMonitor.enabled=false" -}}
{{- end -}}
{{- end -}}

{{- /* Topologies that are deleted with everything they run are let go by an operator alone. */ -}}
{{- define "lamina.checkTeardown" -}}
{{- if and .Values.teardown.enabled (eq (int .Values.operator.replicas) 0) -}}
{{- fail "teardown.enabled is on and operator.replicas is 0, so that nobody would let go of what is torn down and uninstalling would run into its deadline; run an operator: --set operator.replicas=1" -}}
{{- end -}}
{{- end -}}
