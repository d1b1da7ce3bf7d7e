package acl

import (
	"fmt"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// Alone is what Sluice costs by itself, with one table and kind of traffic.
type Alone struct {
	Scale   string   `json:"scale"`
	Traffic string   `json:"traffic"`
	BuildMs float64  `json:"buildMs"`
	Bytes   uint64   `json:"bytes"`
	Timings []Timing `json:"timings"` // IPv4, IPv6, and a loop that looks nothing up
}

// RunAlone measures every scale, those that rte_acl isn't given included, with
// both families taking turns.
func RunAlone(cfg Config, progress func(string)) ([]Alone, error) {
	release, err := pin(cfg.CPU)
	if err != nil {
		return nil, err
	}
	defer release()
	var out []Alone
	for _, scale := range ruletest.Scales {
		progress(fmt.Sprintf("%s: both families", scale.Name))
		set := scale.Cluster.Set()
		table, side, err := buildOurs(set)
		if err != nil {
			return nil, fmt.Errorf("scale %s: %w", scale.Name, err)
		}
		for _, zipf := range []bool{false, true} {
			a := Alone{Scale: scale.Name, Traffic: "uniform", BuildMs: side.BuildMs, Bytes: side.Bytes}
			traffic := ruletest.Traffic{Seed: 1, Count: cfg.Packets, Zipf: zipf}
			if zipf {
				a.Traffic = "zipf"
			}
			v4 := trace(table, set, traffic)
			traffic.IPv6 = true
			a.Timings = alone(cfg, table, v4, trace(table, set, traffic))
			out = append(out, a)
		}
	}
	return out, nil
}

func alone(cfg Config, table *classify.Table, v4, v6 []classify.Query) []Timing {
	verdicts := make([]classify.Verdict, len(v4))
	var took [3][]float64
	for range cfg.Rounds {
		for i, q := range [][]classify.Query{v4, v6} {
			took[i] = append(took[i], timed(table, q, verdicts, cfg.Batch))
		}
		read := func() { touch(v4, verdicts) }
		again(read)
		took[2] = append(took[2], again(read)/float64(len(v4)))
	}
	return []Timing{newTiming("IPv4", took[0]), newTiming("IPv6", took[1]), newTiming("touch", took[2])}
}

// touch reads all of each query and writes a verdict: what any classifier pays
// for a trace that is longer than its caches.
//
//go:noinline
func touch(q []classify.Query, out []classify.Verdict) {
	out = out[:len(q)]
	for i := range q {
		out[i] = classify.Verdict(q[i].Remote.Hi) ^ classify.Verdict(q[i].Remote.Lo) ^
			classify.Verdict(q[i].Row) ^ classify.Verdict(q[i].Port) ^ classify.Verdict(q[i].Proto)
	}
}
