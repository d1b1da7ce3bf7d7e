// Package doctor examines whether a node can run Sluice well: kernel, limits,
// network cards, other programs that are attached, the CNI. It reads and tries
// things out, and changes nothing: what it creates to see whether it may, it
// closes at once. Each finding comes with what to do about it.
package doctor

import (
	"context"
	"fmt"
)

// Level is how bad a finding is.
type Level string

const (
	OK    Level = "ok"
	Info  Level = "info"  // worth knowing, nothing to do
	Warn  Level = "warn"  // works, but slower or less well
	Fault Level = "fault" // doesn't work
)

// Finding is one thing that was looked at.
type Finding struct {
	Area   string `json:"area"` // kernel, limits, bpffs, nic, programs, cni, agent
	Name   string `json:"name"`
	Level  Level  `json:"level"`
	Value  string `json:"value"`            // what there is
	Advice string `json:"advice,omitempty"` // what to do, if anything
}

// Options say where to look. Empty paths of Root stand for the machine itself.
type Options struct {
	Root    string // in front of /proc, /sys, /etc, /boot and /opt, for tests
	PinPath string
	Socket  string // of the agent's API
}

// Report is all findings.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Worst returns the level of the worst finding.
func (r *Report) Worst() Level {
	worst, rank := OK, map[Level]int{OK: 0, Info: 1, Warn: 2, Fault: 3}
	for _, f := range r.Findings {
		if rank[f.Level] > rank[worst] {
			worst = f.Level
		}
	}
	return worst
}

func (r *Report) add(area, name string, l Level, value, advice string) {
	r.Findings = append(r.Findings, Finding{area, name, l, value, advice})
}

// Examine looks at everything.
func Examine(ctx context.Context, o Options) *Report {
	r := &Report{}
	r.kernel(&o)
	r.privileges(&o)
	r.pins(&o)
	r.cards(&o)
	r.programs(&o)
	r.cni(&o)
	r.agent(ctx, &o)
	return r
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
