package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/bench/traffic"
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
	// Awake keeps the CPUs from sleeping meanwhile.
	Awake bool
	// Congestion is the congestion control of the pods' TCP, "cubic" for one; "":
	// what the kernel is set to.
	Congestion string
	// Cable, if not nil, is what is measured in place of a node.
	Cable *Cable
	// Profile, if not nil, says of which measurements it is to be found where the
	// CPUs' time went. They are made once more after all others: sampling costs
	// some of it.
	Profile func(*Results) []Pair
	// Pcap is a file with packets for the workloads that replay them.
	Pcap string
	// around, if not nil, is called to call what measures.
	around func(ctx context.Context, dir string, measure func() error) error
	lane   int    // tells apart what one process measures at a time
	Self   string // the binary that has the agent and the peers in it
	// Within, if not 0, is how long all may take: a round of runs that will not
	// fit is not begun.
	Within time.Duration
	// Progress, if not nil, is told of each measurement before it starts.
	Progress func(Progress)
	// Keep, if not nil, is given what there is so far after each measurement;
	// its error ends the run.
	Keep func(*Results) error
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
	if p.Within < 0 {
		errs = append(errs, fmt.Errorf("within %v: want 0, for no limit, or more", p.Within))
	}
	if p.Retries < 0 {
		errs = append(errs, fmt.Errorf("retries %d: want 0 or more", p.Retries))
	}
	if p.Duration < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("duration %v: want 100ms or more", p.Duration))
	}
	if p.Cable != nil {
		errs = append(errs, p.Cable.Validate())
	}
	if err := traffic.HasCongestion(p.Congestion); err != nil {
		errs = append(errs, err)
	}
	if p.Pcap != "" {
		if _, err := os.Stat(p.Pcap); err != nil {
			errs = append(errs, fmt.Errorf("capture: %w", err))
		}
	}
	known := Systems()
	for _, name := range p.Systems {
		if !slices.ContainsFunc(known, func(s System) bool { return s.Name == name }) {
			errs = append(errs, fmt.Errorf("system %q: want one of %s", name, nameList(known, func(s System) string { return s.Name })))
		}
	}
	return errors.Join(errs...)
}

// step is one measurement to make.
type step struct {
	workload *Workload
	system   System
	run      int
}

// steps lists the measurements of a plan, round by round: every workload once
// with each of its systems. The systems of a workload follow one another, and
// each round begins with another of them, so that what drifts on the machine
// meets all alike; and what is measured when the time is up has whole rounds.
func (p Plan) steps() (steps []step, skipped []string) {
	all := Systems()
	if p.Cable != nil {
		all = []System{wired}
	}
	lacks := map[string]error{}
	chosen := make([][]System, len(p.Workloads))
	for i := range p.Workloads {
		w := &p.Workloads[i]
		if runtime.NumCPU() < w.CPUs {
			skipped = append(skipped, fmt.Sprintf("%s: needs %d CPUs", w.Name, w.CPUs))
			continue
		}
		if w.Replays && p.Pcap == "" {
			skipped = append(skipped, w.Name+": no file with packets was given (--pcap)")
			continue
		}
		if p.Cable != nil {
			if !w.Frames {
				skipped = append(skipped, w.Name+": needs pods; between interfaces there are only frames")
				continue
			}
			w.Systems = []string{wired.Name}
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
		chosen[i] = systems
	}
	for run := range p.Runs {
		for i, systems := range chosen {
			for k := range systems {
				steps = append(steps, step{&p.Workloads[i], systems[(run+k)%len(systems)], run})
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
	release, err := spare()
	if err != nil {
		return nil, err
	}
	defer release()
	machine, err := ReadMachine()
	if err != nil {
		return nil, err
	}
	if p.Awake {
		sleepAgain, err := keepAwake()
		if err != nil {
			return nil, err
		}
		defer sleepAgain()
		machine.Awake = true
	}
	if p.Congestion != "" {
		machine.Congestion = p.Congestion
	}
	if err := sweepDead(); err != nil {
		return nil, err
	}
	steps, skipped := p.steps()
	r := &Results{
		Machine: machine, Started: time.Now(), Runs: p.Runs, Duration: p.Duration.String(), Skipped: skipped,
		Versions: map[string]string{}, Systems: map[string]string{},
	}
	if len(steps) == 0 {
		return nil, errors.Join(errors.New("nothing to measure: none of these systems is there and meant for these workloads"),
			errors.New(strings.Join(skipped, "\n")))
	}
	r.describe(p.Workloads, steps)
	c := newClock(steps)
	if err = p.walk(ctx, r, steps, c); err == nil && p.Profile != nil {
		err = p.profile(ctx, r, steps, c)
	}
	r.Finished = time.Now()
	return r, err
}

// describe notes what the steps are about.
func (r *Results) describe(workloads []Workload, steps []step) {
	for i := range workloads {
		r.Workloads = append(r.Workloads, workloads[i].info())
	}
	for _, s := range steps {
		if r.Systems[s.system.Name] == "" && s.system.Version != nil {
			r.Versions[s.system.Name] = s.system.Version()
		}
		r.Systems[s.system.Name] = s.system.About
	}
}

// walk makes the measurements one by one.
func (p Plan) walk(ctx context.Context, r *Results, steps []step, c *clock) error {
	for i, s := range steps {
		if ctx.Err() != nil {
			r.Partial = fmt.Sprintf("interrupted after %d of %d measurements", i, len(steps))
			return context.Cause(ctx)
		}
		within := p.Within
		if within > 0 && p.Profile != nil && s.run >= enough { // fewer runs say too little
			within -= min(profileReserve, within/10)
		}
		if within > 0 && !c.fits(i, within) {
			r.Partial = fmt.Sprintf("%v were enough for %d of %d measurements", p.Within, i, len(steps))
			if at := len(steps) / p.Runs; i%at == 0 && i > 0 {
				r.Runs, r.Partial = i/at, "" // whole rounds: fewer runs, but nothing is missing
			}
			return nil
		}
		if p.Progress != nil {
			p.Progress(Progress{i, len(steps), c.remaining(i, within),
				fmt.Sprintf("%s, %s, run %d of %d", s.workload.Name, s.system.Name, s.run+1, p.Runs)})
		}
		begun := time.Now()
		sample, err := p.calm(ctx, s)
		switch {
		case err == nil:
			r.Samples = append(r.Samples, sample)
		case ctx.Err() != nil:
			r.Partial = fmt.Sprintf("interrupted after %d of %d measurements", i, len(steps))
			return err
		default:
			r.Failures = append(r.Failures, fmt.Sprintf("%s, %s, run %d: %v", s.workload.Name, s.system.Name, s.run+1, err))
		}
		c.took(i, time.Since(begun))
		if p.Keep != nil {
			if err := p.Keep(r); err != nil {
				r.Partial = fmt.Sprintf("ended after %d of %d measurements: %v", i+1, len(steps), err)
				return err
			}
		}
	}
	return nil
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
	s, err := newStage(stageName(os.Getpid(), p.lane), p.Self, st.workload, p.Cable, p.Congestion)
	if err != nil {
		return sample, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if s.Running, err = st.system.Start(ctx, s); err != nil {
		return sample, fmt.Errorf("start %s: %w", st.system.Name, err)
	}
	defer func() { err = errors.Join(err, s.Running.Stop()) }()
	s.enforces, s.blind, s.pcap = !st.system.Open, st.system.Blind && p.Cable == nil, p.Pcap
	if !st.workload.Raw && !st.system.Blind {
		if err := s.probe(ctx); err != nil {
			return sample, fmt.Errorf("probe before the measurement: %w\n%s", err, s.tail())
		}
	}
	sample = Sample{Workload: st.workload.Name, System: st.system.Name, Run: st.run, Started: time.Now(), Modes: s.Running.Modes()}
	before, err := othersTime()
	if err != nil {
		return sample, err
	}
	measure := func() (err error) {
		sample.Metrics, err = st.workload.Run(ctx, s, p.Duration)
		return err
	}
	if p.around != nil {
		err = p.around(ctx, s.dir, measure)
	} else {
		err = measure()
	}
	if err != nil {
		return sample, err
	}
	sample.Limit = s.limit
	after, err := othersTime()
	sample.Others = (after - before).Seconds() / time.Since(sample.Started).Seconds()
	return sample, err
}
