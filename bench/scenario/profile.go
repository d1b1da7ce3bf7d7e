package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Profile is where the CPUs' time went during one measurement.
type Profile struct {
	Workload string `json:"workload"`
	System   string `json:"system"`
	// Event is what perf sampled by: cycles, or where a machine doesn't count
	// them, the clock.
	Event   string  `json:"event,omitempty"`
	Samples int     `json:"samples,omitempty"` // that were not idle
	Stages  []Share `json:"stages"`            // largest first
	Symbols []Share `json:"symbols"`           // the largest
}

// Share is a part of the time that was not idle.
type Share struct {
	Name  string  `json:"name"`
	Share float64 `json:"share"`
}

// Percent is a share for people.
func (s Share) Percent() string { return fmt.Sprintf("%.1f %%", 100*s.Share) }

// Pair is a workload under a system.
type Pair struct{ Workload, System string }

// String names the two.
func (p Pair) String() string { return p.Workload + ", " + p.System }

// maxSymbols is how many symbols a profile names.
const maxSymbols = 25

// sortProfile reads lines such as "1234 ffffffff8151b40c veth_xmit ([kernel.kallsyms])":
// process, address, symbol and file of a sample each. kind tells what a process
// is besides one of the benchmark's own: stageOthers, stagePerf, or nothing.
func sortProfile(text string, kind func(pid int) string) (pr Profile) {
	byStage, bySymbol := map[string]int{}, map[string]int{}
	for line := range strings.Lines(text) {
		pid, symbol, file, ok := readSample(line)
		if !ok {
			continue
		}
		name := kind(pid)
		if name == "" {
			name = stageOf(symbol, file)
		}
		if name == stageIdle {
			continue
		}
		pr.Samples++
		byStage[name]++
		if name != stageOthers && name != stagePerf {
			bySymbol[symbol]++
		}
	}
	pr.Stages, pr.Symbols = shares(byStage, pr.Samples), shares(bySymbol, pr.Samples)
	pr.Symbols = pr.Symbols[:min(len(pr.Symbols), maxSymbols)]
	return pr
}

func readSample(line string) (pid int, symbol, file string, ok bool) {
	line = strings.TrimSpace(line)
	number, rest, _ := strings.Cut(line, " ")
	pid, err := strconv.Atoi(number)
	_, rest, _ = strings.Cut(strings.TrimSpace(rest), " ")      // the address
	if name, ok := strings.CutSuffix(rest, " (deleted))"); ok { // a file such as "/memfd:forward (deleted)"
		rest = name + ")"
	}
	at := strings.LastIndex(rest, " (")
	if err != nil || at < 0 || !strings.HasSuffix(rest, ")") {
		return 0, "", "", false
	}
	return pid, rest[:at], rest[at+2 : len(rest)-1], true
}

// shares are counts as parts of all, the largest first.
func shares(counts map[string]int, all int) []Share {
	var out []Share
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, Share{name, float64(counts[name]) / float64(all)})
	}
	slices.SortStableFunc(out, func(a, b Share) int { return cmp.Compare(b.Share, a.Share) })
	return out
}

// String is one line with the shares of the stages.
func (p Profile) String() string { return p.Workload + ", " + p.System + ": " + p.Where() }

// Where is the shares of the stages.
func (p Profile) Where() string {
	var parts []string
	for _, s := range p.Stages {
		if s.Share >= 0.01 {
			parts = append(parts, fmt.Sprintf("%.0f%% %s", 100*s.Share, s.Name))
		}
	}
	return strings.Join(parts, ", ")
}

// About says how a profile was made, and what is to be known to read it.
func (p Profile) About() string {
	s := "sampled by perf on all CPUs, by " + p.Event
	if strings.Contains(p.Event, "clock") {
		s += ": this machine counts no cycles, and what runs with interrupts off is seen where they go on again (unlocking, end of a softirq)"
	}
	return s
}

// Everything is the measurements of a plan, each once.
func Everything(r *Results) (out []Pair) {
	for _, w := range r.Workloads {
		for _, s := range w.Systems {
			out = append(out, Pair{w.Name, s})
		}
	}
	return out
}

// profileReserve is how much of a limited time is kept for profiles, at most.
const profileReserve = 45 * time.Second

// profile makes those measurements once more that the plan wants profiled, as
// long as there is time.
func (p Plan) profile(ctx context.Context, r *Results, steps []step, c *clock) error {
	var todo []step
	for _, pair := range p.Profile(r) {
		at := slices.IndexFunc(steps, func(s step) bool { return s.key() == pair })
		if at >= 0 && pair.System != Ceiling {
			todo = append(todo, steps[at])
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if err := needs("linux-perf", "perf")(); err != nil {
		r.Skipped = append(r.Skipped, fmt.Sprintf("profiles: %v", err))
		return nil
	}
	for i, s := range todo {
		if p.Within > 0 && c.expect(s)+profileCost > p.Within-time.Since(c.begun) {
			r.Skipped = append(r.Skipped, fmt.Sprintf("profiles: %v were enough for %d of %d", p.Within, i, len(todo)))
			return nil
		}
		if p.Progress != nil {
			p.Progress(Progress{i, len(todo), 0, fmt.Sprintf("profile of %s, %s", s.workload.Name, s.system.Name)})
		}
		pr, err := p.profileStep(ctx, s)
		switch {
		case ctx.Err() != nil:
			r.Partial = "interrupted before all profiles were made"
			return context.Cause(ctx)
		case err != nil:
			r.Failures = append(r.Failures, fmt.Sprintf("profile of %s, %s: %v", s.workload.Name, s.system.Name, err))
		default:
			r.Profiles = append(r.Profiles, pr)
		}
	}
	return nil
}

// profileCost is what perf takes to start, to end and to find symbols.
const profileCost = 3 * time.Second

// profileStep makes one measurement under a profiler; its numbers are dropped.
func (p Plan) profileStep(ctx context.Context, s step) (pr Profile, err error) {
	p.around = func(ctx context.Context, dir string, measure func() error) error {
		prof, err := startProfiler(dir)
		if err != nil {
			return err
		}
		err = measure()
		got, bad := prof.stop(ctx)
		pr = got
		return errors.Join(err, bad)
	}
	if _, err = p.measure(ctx, s); err != nil {
		return pr, err
	}
	if pr.Samples == 0 {
		return pr, errors.New("perf has no sample that was not idle")
	}
	pr.Workload, pr.System = s.workload.Name, s.system.Name
	return pr, nil
}
