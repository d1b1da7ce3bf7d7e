package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// Plan is what is to be measured.
type Plan struct {
	Workloads []Workload
	Systems   []string // only these; empty: all that a workload is meant for
	Runs      int
	Duration  time.Duration // of each measurement
	// Retries is how often a measurement that other processes disturbed is made
	// again.
	Retries int
	Self    string // the binary that has the agent and the peers in it
	// Progress, if not nil, is told of each measurement before it starts.
	Progress func(done, total int, what string)
	// Waiting, if not nil, is told again and again that another benchmark runs
	// on this machine and must end first.
	Waiting func()
}

// Validate reports every fault at once.
func (p Plan) Validate() error {
	var errs []error
	if p.Runs < 1 {
		errs = append(errs, fmt.Errorf("runs %d: want 1 or more", p.Runs))
	}
	if p.Retries < 0 {
		errs = append(errs, fmt.Errorf("retries %d: want 0 or more", p.Retries))
	}
	if p.Duration < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("duration %v: want 100ms or more", p.Duration))
	}
	known := Systems()
	for _, name := range p.Systems {
		if !slices.ContainsFunc(known, func(s System) bool { return s.Name == name }) {
			errs = append(errs, fmt.Errorf("system %q: want one of %s", name, nameList(known, func(s System) string { return s.Name })))
		}
	}
	return errors.Join(errs...)
}

// Select returns the workloads of these names, in their usual order. A name
// also stands for all that begin with it and a hyphen; no name stands for all.
func Select(names []string) ([]Workload, error) {
	all := Workloads()
	if len(names) == 0 {
		return all, nil
	}
	matches := func(w Workload, name string) bool {
		return w.Name == name || strings.HasPrefix(w.Name, name+"-")
	}
	for _, n := range names {
		if !slices.ContainsFunc(all, func(w Workload) bool { return matches(w, n) }) {
			return nil, fmt.Errorf("workload %q: want one of %s", n, nameList(all, func(w Workload) string { return w.Name }))
		}
	}
	return slices.DeleteFunc(all, func(w Workload) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return matches(w, n) })
	}), nil
}

func nameList[T any](list []T, name func(T) string) string {
	var out []string
	for _, v := range list {
		out = append(out, name(v))
	}
	return strings.Join(out, ", ")
}

// step is one measurement to make.
type step struct {
	workload *Workload
	system   System
	run      int
}

// steps lists the measurements of a plan. The systems of a workload take turns,
// and each run begins with another of them, so that what drifts on the machine
// meets all alike.
func (p Plan) steps() (steps []step, skipped []string) {
	all := Systems()
	lacks := map[string]error{}
	for i := range p.Workloads {
		w := &p.Workloads[i]
		if runtime.NumCPU() < w.CPUs {
			skipped = append(skipped, fmt.Sprintf("%s: needs %d CPUs", w.Name, w.CPUs))
			continue
		}
		var systems []System
		for _, name := range w.Systems {
			at := slices.IndexFunc(all, func(s System) bool { return s.Name == name })
			if at < 0 || len(p.Systems) > 0 && !slices.Contains(p.Systems, name) {
				continue
			}
			if needs := all[at].Needs; needs != nil {
				if err := needs(); err != nil {
					lacks[name] = err
					continue
				}
			}
			systems = append(systems, all[at])
		}
		for run := range p.Runs {
			for k := range systems {
				steps = append(steps, step{w, systems[(run+k)%len(systems)], run})
			}
		}
	}
	for _, s := range all {
		if err := lacks[s.Name]; err != nil {
			skipped = append(skipped, fmt.Sprintf("%s: %v", s.Name, err))
		}
	}
	return steps, skipped
}

// Run measures. What was measured before a failure, or before ctx ended, is
// returned with the error. A system that fails a workload is reported in
// Results.Failures, and does not stop the others.
func (p Plan) Run(ctx context.Context) (*Results, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	unlock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	machine, err := ReadMachine()
	if err != nil {
		return nil, err
	}
	if err := sweepDead(); err != nil {
		return nil, err
	}
	steps, skipped := p.steps()
	r := &Results{Machine: machine, Runs: p.Runs, Duration: p.Duration.String(), Skipped: skipped}
	if len(steps) == 0 {
		return nil, errors.New("nothing to measure: none of these systems is meant for these workloads")
	}
	for i, s := range steps {
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		if p.Progress != nil {
			p.Progress(i, len(steps), fmt.Sprintf("%s, %s, run %d of %d", s.workload.Name, s.system.Name, s.run+1, p.Runs))
		}
		sample, err := p.calm(ctx, s)
		switch {
		case err == nil:
			r.Samples = append(r.Samples, sample)
		case ctx.Err() != nil:
			return r, err
		default:
			r.Failures = append(r.Failures, fmt.Sprintf("%s, %s, run %d: %v", s.workload.Name, s.system.Name, s.run+1, err))
		}
	}
	return r, nil
}

// disturbance is how many CPUs other processes may use during a measurement
// that is not repeated.
const disturbance = 0.1

// calm measures, and measures again if other processes disturbed it. The least
// disturbed sample counts, whatever its numbers.
func (p Plan) calm(ctx context.Context, st step) (best Sample, err error) {
	for try := range 1 + p.Retries {
		sample, err := p.measure(ctx, st)
		if err != nil {
			return best, err
		}
		if try == 0 || sample.Others < best.Others {
			best = sample
		}
		if best.Others <= disturbance {
			break
		}
	}
	return best, nil
}

// measure builds a node, makes one measurement on it and takes it down.
func (p Plan) measure(ctx context.Context, st step) (sample Sample, err error) {
	s, err := newStage(stageName(os.Getpid()), stageDir(os.Getpid()), p.Self, st.workload)
	if err != nil {
		return sample, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.Running, err = st.system.Start(ctx, s); err != nil {
		return sample, fmt.Errorf("start %s: %w", st.system.Name, err)
	}
	defer func() { err = errors.Join(err, s.Running.Stop()) }()
	if !st.workload.Raw {
		if err := s.probe(ctx); err != nil {
			return sample, fmt.Errorf("probe before the measurement: %w\n%s", err, s.tail())
		}
	}
	sample = Sample{Workload: st.workload.Name, System: st.system.Name, Run: st.run, Started: time.Now(), Modes: s.Running.Modes()}
	before, err := othersTime()
	if err != nil {
		return sample, err
	}
	if sample.Metrics, err = st.workload.Run(ctx, s, p.Duration); err != nil {
		return sample, err
	}
	after, err := othersTime()
	sample.Others = (after - before).Seconds() / time.Since(sample.Started).Seconds()
	return sample, err
}

// What a process leaves carries its number, so that another can tell whether
// it is still in use.
const runDir = "/run/sluice"

const stagePrefix = "bench-"

func stageName(pid int) string { return stagePrefix + strconv.Itoa(pid) }
func stageDir(pid int) string  { return filepath.Join(runDir, stageName(pid)) }

// lock waits until no other benchmark runs on this machine.
func (p Plan) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("create folder of the lock: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(runDir, "bench.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // the file stays: others may wait for it
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
		}
		if p.Waiting != nil {
			p.Waiting()
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, errors.Join(fmt.Errorf("wait for another benchmark to end: %w", err), f.Close())
		}
	}
}

// sweepDead removes what benchmarks that were killed have left.
func sweepDead() error {
	spaces, err := netlab.Namespaces("sluice-" + stagePrefix)
	errs := []error{err}
	dirs, _ := filepath.Glob(filepath.Join(runDir, stagePrefix+"*")) // the pattern is well-formed
	pids := map[int]bool{}
	for _, name := range append(spaces, dirs...) {
		_, rest, _ := strings.Cut(filepath.Base(name), stagePrefix)
		number, _, _ := strings.Cut(rest, "-")
		if pid, err := strconv.Atoi(number); err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			pids[pid] = true
		}
	}
	for pid := range pids {
		dir := stageDir(pid)
		if err := unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("unmount bpffs of benchmark %d: %w", pid, err))
			continue // don't delete through a mount
		}
		errs = append(errs, netlab.Sweep(stageName(pid)), os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
