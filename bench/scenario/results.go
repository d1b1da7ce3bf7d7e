package scenario

import (
	"slices"
)

// Results is everything that one invocation measured.
type Results struct {
	Machine  Machine  `json:"machine"`
	Runs     int      `json:"runs"`
	Duration string   `json:"duration"` // of each measurement
	Skipped  []string `json:"skipped,omitempty"`
	Failures []string `json:"failures,omitempty"`
	Samples  []Sample `json:"samples"`
}

// series is the values of one metric of one system, by run.
type series struct {
	metric Metric
	byRun  map[int]float64
}

func (s *series) values() []float64 {
	var vs []float64
	for _, v := range s.byRun {
		vs = append(vs, v)
	}
	slices.Sort(vs)
	return vs
}

// block is what is known of one workload.
type block struct {
	workload string
	systems  []string // in the workload's order
	metrics  []string // in the order of their first appearance
	data     map[string]map[string]*series
	modes    map[string]map[string]string // by system
	others   []float64                    // of each sample
}

// blocks sorts the samples by workload.
func (r *Results) blocks() []*block {
	var out []*block
	for _, w := range Workloads() {
		b := &block{workload: w.Name, data: map[string]map[string]*series{}, modes: map[string]map[string]string{}}
		for _, s := range r.Samples {
			if s.Workload == w.Name {
				b.add(s)
			}
		}
		for _, name := range w.Systems {
			if b.data[name] != nil {
				b.systems = append(b.systems, name)
			}
		}
		if len(b.systems) > 0 {
			out = append(out, b)
		}
	}
	return out
}

func (b *block) add(s Sample) {
	if b.data[s.System] == nil {
		b.data[s.System] = map[string]*series{}
	}
	b.modes[s.System] = s.Modes
	b.others = append(b.others, s.Others)
	for _, m := range s.Metrics {
		if !slices.Contains(b.metrics, m.Name) {
			b.metrics = append(b.metrics, m.Name)
		}
		at := b.data[s.System][m.Name]
		if at == nil {
			at = &series{metric: m, byRun: map[int]float64{}}
			b.data[s.System][m.Name] = at
		}
		at.byRun[s.Run] = m.Value
	}
}

// metric describes a metric by any system's samples.
func (b *block) metric(name string) Metric {
	for _, s := range b.systems {
		if at := b.data[s][name]; at != nil {
			return at.metric
		}
	}
	return Metric{Name: name}
}

// disturbed says how many samples others disturbed, and the worst of it.
func (b *block) disturbed() (n int, worst float64) {
	for _, o := range b.others {
		if o > disturbance {
			n++
		}
		worst = max(worst, o)
	}
	return n, worst
}
