// Package scenario measures systems that carry packets between two pods of a
// node against each other: every System under every Workload that concerns it,
// in interleaved repetitions, into samples that the report turns into medians
// with their spread.
//
// A System is the node's forwarding and filtering: the kernel alone, Sluice in
// its modes, nftables, another AF_XDP forwarder. A Workload is traffic and what
// is measured of it; it knows nothing of systems. Both are plain values in a
// list, so that another peer or another workload is one more file here.
//
// Each measurement builds its node from nothing in network namespaces and takes
// it down afterwards: no state is carried from one to the next. Needs root.
package scenario

import (
	"context"
	"time"
)

// System is something that carries packets between pods.
type System struct {
	Name  string
	About string
	// Needs says what the machine lacks to run it; nil: always there.
	Needs func() error
	// Version of the program behind it, if it has one.
	Version func() string
	// Open systems enforce nothing.
	Open bool
	// Blind systems carry no packets to pod B, so that there is nothing to probe.
	Blind bool
	// Start makes it carry the packets of a stage that has just been built.
	Start func(context.Context, *Stage) (Running, error)
}

// Running is a System at work.
type Running interface {
	// Modes says what is really in use, such as "xsk: copy".
	Modes() map[string]string
	// Stop ends it; the stage is taken down next.
	Stop() error
}

// Workload is traffic between two pods and what is measured of it.
type Workload struct {
	Name    string
	About   string
	Systems []string // that it is meant for, the first is what the others are compared to
	// Family is 4 or 6.
	Family int
	// CPUs is how many the workload needs; fewer make its numbers meaningless.
	CPUs int
	// Flows is how many flows at a time it makes, for systems that size tables.
	Flows int
	// Standard are the systems under which it is measured if nothing is asked
	// for: what fits ten minutes. None: it is not.
	Standard []string
	// Sweep, XName and X place a workload among those that differ from it in one
	// parameter: see Info.
	Sweep, XName string
	X            float64
	// Rules is what the systems that enforce something enforce.
	Rules Rules
	// Pods are how many pods the node has besides the two.
	Pods int
	// MTU of the node's links; 0: 1500.
	MTU int
	// Limited leaves Sluice's limit of new flows a pod as it is by default; else
	// there is none.
	Limited bool
	// Frames says that it needs no pods but only two links.
	Frames bool
	// Replays says that it needs Plan.Pcap.
	Replays bool
	// Raw workloads have no stack at the far end, so there is nothing to probe.
	Raw bool
	Run func(context.Context, *Stage, time.Duration) ([]Metric, error)
}

// Better says which way a metric improves.
type Better string

const (
	Higher  Better = "higher"
	Lower   Better = "lower"
	Neither Better = "" // an explanation, not a result
)

// Metric is one measured number.
type Metric struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Value  float64 `json:"value"`
	Better Better  `json:"better,omitempty"`
}

// Sample is one measurement of one System under one Workload.
type Sample struct {
	Workload string            `json:"workload"`
	System   string            `json:"system"`
	Run      int               `json:"run"`
	Started  time.Time         `json:"started"`
	Metrics  []Metric          `json:"metrics"`
	Modes    map[string]string `json:"modes,omitempty"`
	// Limit says what held the system back, if it was not the system itself.
	Limit string `json:"limit,omitempty"`
	// Others is how many CPUs all other processes of the machine used meanwhile.
	Others float64 `json:"others"`
}
