package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// load is what the CPUs of the machine have done since it was started.
type load struct {
	busy, softirq time.Duration // softirq is part of busy
	stolen        time.Duration // by the hypervisor, while there was something to do
}

// readLoad reads /proc/stat. Time is counted by the kernel's tick, so that
// spans of a second or more are good to about a percent.
func readLoad() (load, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return load{}, fmt.Errorf("read load: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal
	if len(f) < 9 {
		return load{}, fmt.Errorf("read load: %q", line)
	}
	var l load
	for i, text := range f[1:9] {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return load{}, fmt.Errorf("read load: %w", err)
		}
		if i == 7 {
			l.stolen = time.Duration(n) * tick
		}
		if i == 3 || i == 4 || i == 7 {
			continue
		}
		l.busy += time.Duration(n) * tick
		if i == 6 {
			l.softirq += time.Duration(n) * tick
		}
	}
	return l, nil
}

// meter measures how busy the machine is over a span.
type meter struct {
	start time.Time
	from  load
}

func startMeter() (m meter, err error) {
	m.from, err = readLoad()
	m.start = time.Now()
	return m, err
}

// cores is how many CPUs were busy on average, in all and with softirqs.
func (m meter) metrics() ([]Metric, error) {
	to, err := readLoad()
	span := time.Since(m.start).Seconds()
	return []Metric{
		{Name: "cpu", Unit: "cores", Value: (to.busy - m.from.busy).Seconds() / span, Better: Neither},
		{Name: "softirq", Unit: "cores", Value: (to.softirq - m.from.softirq).Seconds() / span, Better: Neither},
	}, err
}

// Kernel threads are children of this process.
const kthreadd = 2

// othersTime is the CPU time that has been spent by all processes but this one,
// its children and the kernel's threads. What a process that ended has spent
// is found with its parent, so that the sum never shrinks.
func othersTime() (time.Duration, error) { return othersTimeIn("/proc", os.Getpid()) }

func othersTimeIn(proc string, self int) (sum time.Duration, err error) {
	all, err := readProcesses(proc)
	for _, p := range all {
		if !p.of(self) && !p.of(kthreadd) {
			sum += p.spent
		}
	}
	return sum, err
}

// procStat is a process: what it has spent, with its children that have ended.
type procStat struct {
	pid, parent int
	spent       time.Duration
}

// of reports whether a process is another or a child of it.
func (p procStat) of(pid int) bool { return p.pid == pid || p.parent == pid }

func readProcesses(proc string) (all []procStat, err error) {
	stats, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		var p procStat
		var err1, err2 error
		p.pid, err1 = strconv.Atoi(filepath.Base(filepath.Dir(path)))
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // from field 3 on, proc_pid_stat(5)
		if err1 != nil || len(f) < 15 {
			return nil, fmt.Errorf("read CPU time: %s is short", path)
		}
		if p.parent, err2 = strconv.Atoi(f[1]); err2 != nil {
			return nil, fmt.Errorf("read CPU time: %w", err2)
		}
		for _, text := range f[11:15] { // utime, stime, cutime, cstime
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read CPU time: %w", err)
			}
			p.spent += time.Duration(n) * tick
		}
		all = append(all, p)
	}
	return all, nil
}

// processKinds tells this process, its children and the kernel's threads from
// the profiler and from all others.
func processKinds(self, perf int) (func(pid int) string, error) {
	all, err := readProcesses("/proc")
	if err != nil {
		return nil, err
	}
	own := map[int]bool{0: true} // the idle loop's
	for _, p := range all {
		if p.of(self) || p.of(kthreadd) {
			own[p.pid] = true
		}
	}
	return func(pid int) string {
		switch {
		case pid == perf:
			return stagePerf
		case own[pid]:
			return ""
		}
		return stageOthers
	}, nil
}
