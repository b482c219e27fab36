package main

import (
	cadvisor "github.com/google/cadvisor/lib/model"
)

// machine is what the kubelet learns about a host: its online cores and where each of them is.
type machine struct {
	Cores []core `json:"cores"`
}

// core is one physical core.
type core struct {
	Package int `json:"package"`
	Node    int `json:"node"`
	// L3 is absent on machines without one.
	L3   *int  `json:"l3,omitempty"`
	CPUs []int `json:"cpus"`
}

// info is the machine in the words in which the kubelet hears of it.
func (m machine) info() *cadvisor.MachineInfo {
	info := &cadvisor.MachineInfo{}
	position := map[int]int{}
	packages := map[int]bool{}
	for number, c := range m.Cores {
		at, known := position[c.Node]
		if !known {
			at = len(info.Topology)
			position[c.Node] = at
			info.Topology = append(info.Topology, cadvisor.Node{Id: c.Node})
		}
		described := cadvisor.Core{Id: number, Threads: c.CPUs, SocketID: c.Package}
		if c.L3 != nil {
			described.UncoreCaches = []cadvisor.Cache{{Id: *c.L3, Level: 3, Type: "Unified"}}
		}
		info.Topology[at].Cores = append(info.Topology[at].Cores, described)
		info.NumCores += len(c.CPUs)
		packages[c.Package] = true
	}
	info.NumPhysicalCores = len(m.Cores)
	info.NumSockets = len(packages)
	return info
}
