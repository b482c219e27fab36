package main

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/state"
	"k8s.io/kubernetes/pkg/kubelet/cm/cpumanager/topology"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
	"k8s.io/kubernetes/pkg/kubelet/lifecycle"
	"k8s.io/utils/cpuset"
)

// mode is one way to configure the kubelet.
type mode struct {
	name string
	// options are its cpuManagerPolicyOptions besides full-pcpus-only, which every mode has: cores stay whole.
	options map[string]string
	// hints is its topologyManagerPolicy.
	hints string
}

// distributed, aligned: the options that change which CPUs the static policy takes.
const (
	distributed = cpumanager.DistributeCPUsAcrossNUMAOption
	aligned     = cpumanager.PreferAlignByUnCoreCacheOption
)

var modes = []mode{
	{name: "packed", hints: topologymanager.PolicyNone},
	{name: "distributed", options: map[string]string{distributed: "true"}, hints: topologymanager.PolicyNone},
	{name: "aligned", options: map[string]string{aligned: "true"}, hints: topologymanager.PolicyNone},
	{name: "packed+hints", hints: topologymanager.PolicyBestEffort},
	{name: "distributed+hints", options: map[string]string{distributed: "true"}, hints: topologymanager.PolicyBestEffort},
	{name: "aligned+hints", options: map[string]string{aligned: "true"}, hints: topologymanager.PolicyBestEffort},
}

// place admits one pod for each request, in order; a refused pod holds nothing and the next one is tried.
func (m mode) place(ctx context.Context, host machine, requests []int) (modeAnswer, error) {
	reply := modeAnswer{Mode: m.name}
	kubelet, err := m.start(ctx, host)
	if err != nil {
		return reply, err
	}
	for number, cores := range requests {
		pod := podOf(number, cores*kubelet.topology.CPUsPerCore())
		attributes := &lifecycle.PodAdmitAttributes{Pod: pod, Operation: lifecycle.AddOperation}
		result := kubelet.hints.Admit(ctx, attributes)
		given, ok := kubelet.state.GetCPUSet(string(pod.UID), container)
		switch {
		case result.Admit && ok:
			list := given.String()
			reply.CPUs = append(reply.CPUs, &list)
		case result.Admit:
			return reply, fmt.Errorf("request %d is admitted and got no CPUs", number)
		default:
			reply.CPUs = append(reply.CPUs, nil)
			if reply.Refusal == "" {
				reply.Refusal = result.Message
			}
		}
	}
	return reply, nil
}

// kubelet is the part of one that places containers.
type kubelet struct {
	topology *topology.CPUTopology
	hints    topologymanager.Manager
	policy   cpumanager.Policy
	state    state.State
}

func (m mode) start(ctx context.Context, host machine) (*kubelet, error) {
	logger := klog.FromContext(ctx)
	info := host.info()
	found, err := topology.Discover(logger, info)
	if err != nil {
		return nil, fmt.Errorf("discovering the machine: %w", err)
	}
	scope := topologymanager.ContainerTopologyScope
	hints, err := topologymanager.NewManager(logger, info.Topology, m.hints, scope, map[string]string{})
	if err != nil {
		return nil, fmt.Errorf("starting the topology manager: %w", err)
	}
	options := map[string]string{cpumanager.FullPCPUsOnlyOption: "true"}
	for name, value := range m.options {
		options[name] = value
	}
	policy, err := cpumanager.NewStaticPolicy(logger, found, 0, cpuset.New(), hints, options)
	if err != nil {
		return nil, fmt.Errorf("starting the CPU manager: %w", err)
	}
	memory := state.NewMemoryState(logger)
	if err := policy.Start(logger, memory); err != nil {
		return nil, fmt.Errorf("starting the static policy: %w", err)
	}
	started := &kubelet{topology: found, hints: hints, policy: policy, state: memory}
	hints.AddHintProvider(logger, started)
	return started, nil
}

// The kubelet's CPU manager passes these four on to its policy, after it has looked for pods that ended: here none do.

// GetTopologyHints asks the policy.
func (k *kubelet) GetTopologyHints(logger klog.Logger, pod *v1.Pod, container *v1.Container, operation lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return k.policy.GetTopologyHints(logger, k.state, pod, container, operation)
}

// GetPodTopologyHints asks the policy.
func (k *kubelet) GetPodTopologyHints(logger klog.Logger, pod *v1.Pod, operation lifecycle.Operation) map[string][]topologymanager.TopologyHint {
	return k.policy.GetPodTopologyHints(logger, k.state, pod, operation)
}

// Allocate asks the policy.
func (k *kubelet) Allocate(ctx context.Context, pod *v1.Pod, container *v1.Container, operation lifecycle.Operation) error {
	return k.policy.Allocate(klog.FromContext(ctx), k.state, pod, container, operation)
}

// AllocatePod asks the policy.
func (k *kubelet) AllocatePod(logger klog.Logger, pod *v1.Pod, operation lifecycle.Operation) error {
	return k.policy.AllocatePod(logger, k.state, pod, operation)
}

// container is the name of the only container of every pod.
const container = "main"

// podOf is a pod of the Guaranteed class that asks for that many CPUs.
func podOf(number, cpus int) *v1.Pod {
	amounts := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(int64(cpus), resource.DecimalSI),
		v1.ResourceMemory: resource.MustParse("1Gi"),
	}
	name := fmt.Sprintf("request-%d", number)
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			Name:      container,
			Resources: v1.ResourceRequirements{Requests: amounts, Limits: amounts},
		}}},
	}
}
