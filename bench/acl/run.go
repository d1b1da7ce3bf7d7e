package acl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// Config says what is compared.
type Config struct {
	Scales   []string // names of ruletest.Scales
	Packets  int      // of a trace
	Rounds   int      // of each contender, taking turns
	Batch    int
	CPU      int // both sides run on it
	MemoryMB int // for rte_acl
}

// Default returns what the README's table was made with.
func Default() Config {
	return Config{Scales: []string{"1k", "12k", "95k"}, Packets: 1 << 17, Rounds: 31, Batch: 64, CPU: 1, MemoryMB: 8192}
}

// Timing is the distribution of one contender's rounds.
type Timing struct {
	Name   string  `json:"name"`
	Best   float64 `json:"bestNs"` // a lookup
	Median float64 `json:"medianNs"`
	P90    float64 `json:"p90Ns"` // nine rounds of ten were no slower
}

func newTiming(name string, took []float64) Timing {
	slices.Sort(took)
	return Timing{Name: name, Best: took[0], Median: took[len(took)/2], P90: took[len(took)*9/10]}
}

// Side is what one classifier costs.
type Side struct {
	BuildMs float64  `json:"buildMs"`
	Bytes   uint64   `json:"bytes"`
	Timings []Timing `json:"timings"` // fastest median first
}

// Comparison is one scale and kind of traffic.
type Comparison struct {
	Scale   string `json:"scale"`
	Traffic string `json:"traffic"`
	Rules   int    `json:"rules"` // as rte_acl gets them
	Sluice  Side   `json:"sluice"`
	RTE     Side   `json:"rteAcl"`
}

// Run compares the two. Every verdict of every algorithm has to be the same
// on both sides.
func Run(cfg Config, progress func(string)) ([]Comparison, error) {
	dir, err := os.MkdirTemp("", "sluice-acl-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	bin, err := Compile(dir)
	if err != nil {
		return nil, err
	}
	release, err := pin(cfg.CPU)
	if err != nil {
		return nil, err
	}
	defer release()
	var out []Comparison
	for _, scale := range ruletest.Scales {
		if !slices.Contains(cfg.Scales, scale.Name) {
			continue
		}
		more, err := compareScale(cfg, dir, bin, scale.Name, scale.Cluster.Set(), progress)
		if err != nil {
			return nil, fmt.Errorf("scale %s: %w", scale.Name, err)
		}
		out = append(out, more...)
	}
	return out, nil
}

// pin ties the goroutine to one CPU.
func pin(cpu int) (release func(), err error) {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("read affinity: %w", err)
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, fmt.Errorf("run on CPU %d: %w", cpu, err)
	}
	return func() {
		unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}, nil
}

// compareScale compares both kinds of traffic for one set of rules.
func compareScale(cfg Config, dir, bin string, name string, set *rule.Set, progress func(string)) ([]Comparison, error) {
	table, ours, err := buildOurs(set)
	if err != nil {
		return nil, err
	}
	rules, err := Flatten(set, table)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "rules")
	if err := writeFile(path, rules); err != nil {
		return nil, err
	}
	peer, err := Start(bin, cfg.CPU, cfg.MemoryMB)
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	progress(fmt.Sprintf("%s: rte_acl builds %d rules", name, len(rules)))
	var theirs Side
	ns, bytes, err := peer.Build(path)
	if err != nil {
		return nil, err
	}
	theirs.BuildMs, theirs.Bytes = float64(ns)/1e6, bytes
	var out []Comparison
	for _, traffic := range []struct {
		name string
		zipf bool
	}{{"uniform", false}, {"zipf", true}} {
		progress(fmt.Sprintf("%s: %s traffic", name, traffic.name))
		c := Comparison{Scale: name, Traffic: traffic.name, Rules: len(rules), Sluice: ours, RTE: theirs}
		q := trace(table, set, ruletest.Traffic{Seed: 1, Count: cfg.Packets, Zipf: traffic.zipf})
		if c.Sluice.Timings, c.RTE.Timings, err = race(cfg, dir, peer, table, q); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// buildOurs builds a table several times and returns the median time, and the
// memory that stays.
func buildOurs(set *rule.Set) (*classify.Table, Side, error) {
	var took []float64
	var table *classify.Table
	for range 9 {
		start := time.Now()
		t, err := classify.Build(set)
		if err != nil {
			return nil, Side{}, err
		}
		took = append(took, float64(time.Since(start).Nanoseconds())/1e6)
		table = t
	}
	slices.Sort(took)
	return table, Side{BuildMs: took[len(took)/2], Bytes: table.Bytes()}, nil
}

func trace(table *classify.Table, set *rule.Set, traffic ruletest.Traffic) []classify.Query {
	probes := traffic.Trace(set)
	q := make([]classify.Query, len(probes))
	for i, p := range probes {
		q[i] = classify.Query{Remote: packet.AddrFrom(p.Remote), Row: table.Row(p.Endpoint, p.Direction),
			Port: p.Port, Proto: packet.Proto(p.Proto)}
	}
	return q
}

// race lets all contenders classify the trace, round by round.
func race(cfg Config, dir string, peer *Peer, table *classify.Table, q []classify.Query) (ours, theirs []Timing, err error) {
	var keys bytes.Buffer
	for _, x := range q {
		k := Key(x)
		keys.Write(k[:])
	}
	path := filepath.Join(dir, "keys")
	if err := os.WriteFile(path, keys.Bytes(), 0o644); err != nil {
		return nil, nil, err
	}
	if err := peer.Keys(path); err != nil {
		return nil, nil, err
	}
	out := make([]classify.Verdict, len(q))
	table.Classify(q, out)
	took := map[string][]float64{}
	for range cfg.Rounds {
		took["sluice"] = append(took["sluice"], timed(table, q, out, cfg.Batch))
		for _, a := range Algorithms {
			if !peer.Choose(a) {
				continue
			}
			ns, err := peer.Time(cfg.Batch)
			if err != nil {
				return nil, nil, err
			}
			if took[a] == nil {
				if err := check(peer, dir, a, q, out); err != nil {
					return nil, nil, err
				}
			}
			took[a] = append(took[a], float64(ns)/float64(len(q)))
		}
	}
	for name, all := range took {
		if t := newTiming(name, all); name == "sluice" {
			ours = append(ours, t)
		} else {
			theirs = append(theirs, t)
		}
	}
	slices.SortFunc(theirs, func(a, b Timing) int {
		if a.Median < b.Median {
			return -1
		}
		return 1
	})
	return ours, theirs, nil
}

// least is for how long a contender classifies its trace before it is timed, and
// while it is: after others have had the CPU, its clock and its caches take a
// millisecond or two to come back.
const least = 4 * time.Millisecond

// timed classifies the trace for as long as least, and then as long again, and
// returns how many nanoseconds a lookup took of the second time.
func timed(table *classify.Table, q []classify.Query, out []classify.Verdict, batch int) float64 {
	run := func() {
		for i := 0; i < len(q); i += batch {
			end := min(i+batch, len(q))
			table.Classify(q[i:end], out[i:end])
		}
	}
	again(run)
	return again(run) / float64(len(q))
}

// again calls run for as long as least, and returns how many nanoseconds this
// thread, to which the goroutine is locked, spent on the CPU for a call.
func again(run func()) float64 {
	start, calls := onCPU(), 0
	for {
		run()
		calls++
		if took := onCPU() - start; took >= least.Nanoseconds() {
			return float64(took) / float64(calls)
		}
	}
}

func onCPU() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // the kernel has had this clock since 2.6.12
	}
	return t.Nano()
}

// check compares the verdicts of both sides.
func check(peer *Peer, dir, algorithm string, q []classify.Query, want []classify.Verdict) error {
	got, err := peer.Results(dir)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d results for %d packets", algorithm, len(got), len(want))
	}
	for i := range got {
		if got[i] != uint32(want[i])+1 {
			return fmt.Errorf("%s: packet %d (%+v): rte_acl says %#x, sluice %#x", algorithm, i, q[i], got[i]-1, want[i])
		}
	}
	return nil
}

func writeFile(path string, rules []Rule) error {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, rules); err != nil {
		return fmt.Errorf("encode rules: %w", err)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
