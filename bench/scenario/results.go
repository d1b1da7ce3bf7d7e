package scenario

import (
	"slices"
	"time"
)

// Results is everything that one invocation measured.
type Results struct {
	Machine  Machine   `json:"machine"`
	Command  string    `json:"command,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Runs     int       `json:"runs"`
	Duration string    `json:"duration"` // of each measurement
	// Partial says why less was measured than was asked for; empty: nothing is
	// missing.
	Partial   string            `json:"partial,omitempty"`
	Versions  map[string]string `json:"versions,omitempty"` // of the systems' programs
	Skipped   []string          `json:"skipped,omitempty"`
	Failures  []string          `json:"failures,omitempty"`
	Workloads []Info            `json:"workloads,omitempty"`
	Systems   map[string]string `json:"systems,omitempty"` // what each is
	Samples   []Sample          `json:"samples"`
	Profiles  []Profile         `json:"profiles,omitempty"`
}

// Info is what a report says of a workload.
type Info struct {
	Name    string   `json:"name"`
	About   string   `json:"about"`
	Systems []string `json:"systems"` // that have samples or might, in order
	// Sweep names a family of workloads that differ in one parameter: X, which
	// is called XName.
	Sweep string  `json:"sweep,omitempty"`
	XName string  `json:"xName,omitempty"`
	X     float64 `json:"x,omitempty"`
}

func (w *Workload) info() Info {
	return Info{w.Name, w.About, w.Systems, w.Sweep, w.XName, w.X}
}

// Series is the values of one metric of one system, by run.
type Series struct {
	Metric Metric
	ByRun  map[int]float64
}

// Values returns the values in ascending order.
func (s *Series) Values() []float64 {
	var vs []float64
	for _, v := range s.ByRun {
		vs = append(vs, v)
	}
	slices.Sort(vs)
	return vs
}

// Block is what is known of one workload.
type Block struct {
	Info
	Metrics []string                     // in the order of their first appearance
	Modes   map[string]map[string]string // by system
	Limits  map[string]string            // by system: what held it back, if it was not the system
	data    map[string]map[string]*Series
	others  []float64 // of each sample
}

// Blocks sorts the samples by workload. Systems without samples are left out.
func (r *Results) Blocks() []*Block {
	infos := slices.Clone(r.Workloads)
	if len(infos) == 0 {
		for _, w := range Workloads() {
			infos = append(infos, w.info())
		}
	}
	var out []*Block
	for _, info := range infos {
		b := &Block{
			Info: info, data: map[string]map[string]*Series{},
			Modes: map[string]map[string]string{}, Limits: map[string]string{},
		}
		for _, s := range r.Samples {
			if s.Workload == info.Name {
				b.add(s)
			}
		}
		b.Systems = slices.DeleteFunc(slices.Clone(info.Systems), func(name string) bool { return b.data[name] == nil })
		if len(b.Systems) > 0 {
			b.findLimits()
			out = append(out, b)
		}
	}
	return out
}

func (b *Block) add(s Sample) {
	if b.data[s.System] == nil {
		b.data[s.System] = map[string]*Series{}
	}
	b.Modes[s.System] = s.Modes
	if s.Limit != "" {
		b.Limits[s.System] = s.Limit
	}
	b.others = append(b.others, s.Others)
	for _, m := range s.Metrics {
		if !slices.Contains(b.Metrics, m.Name) {
			b.Metrics = append(b.Metrics, m.Name)
		}
		at := b.data[s.System][m.Name]
		if at == nil {
			at = &Series{Metric: m, ByRun: map[int]float64{}}
			b.data[s.System][m.Name] = at
		}
		at.ByRun[s.Run] = m.Value
	}
}

// Ceiling is the name of the system that is no system: what the generator
// reaches if its packets are dropped where they leave pod A.
const Ceiling = "generator"

// GeneratorLimit is what a report says where the generator was the limit.
const GeneratorLimit = "the generator was the limit"

// nearCeiling is the share of the generator's own rate from which on a system's
// rate says more of the generator than of the system.
const nearCeiling = 0.85

// findLimits marks systems that the generator held back.
func (b *Block) findLimits() {
	for _, name := range b.Metrics {
		top := b.Series(Ceiling, name)
		if top == nil || b.Metric(name).Better != Higher {
			continue
		}
		for _, system := range b.Systems {
			if s := b.Series(system, name); system != Ceiling && s != nil && Median(s.Values()) > nearCeiling*Median(top.Values()) {
				b.Limits[system] = GeneratorLimit
			}
		}
	}
}

// Series returns the values of a metric of a system, or nil.
func (b *Block) Series(system, metric string) *Series { return b.data[system][metric] }

// Base is the system that the others are compared to.
func (b *Block) Base() string {
	for _, s := range b.Systems {
		if s != Ceiling {
			return s
		}
	}
	return b.Systems[0]
}

// Metric describes a metric by any system's samples.
func (b *Block) Metric(name string) Metric {
	for _, s := range b.Systems {
		if at := b.data[s][name]; at != nil {
			return at.Metric
		}
	}
	return Metric{Name: name}
}

// Disturbed says how many samples others disturbed, of how many, and the worst
// of it.
func (b *Block) Disturbed() (n, of int, worst float64) {
	for _, o := range b.others {
		if o > disturbance {
			n++
		}
		worst = max(worst, o)
	}
	return n, len(b.others), worst
}
