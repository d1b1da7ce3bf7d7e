package scenario

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ends is how many threads of a workload's ends are in system calls at a time, at most.
const ends = 32

// spare keeps the Go runtime of this process out of what is measured, until release is
// called. Its monitor wakes thousands of times a second while ends are in system
// calls, on the CPU that has most to spare: on another than theirs, CPU 0, as long as
// the system under test leaves that idle, and on theirs if not. A process that does
// nothing else halves the rate of a connection whose CPU it shares. And ends must not
// wait for it to take from one what another needs to go on.
func spare() (release func() error, err error) {
	tid, err := monitorThread()
	var before, last unix.CPUSet
	if err == nil {
		err = unix.SchedGetaffinity(tid, &before)
	}
	if err == nil {
		last.Set(loopCPU())
		err = unix.SchedSetaffinity(tid, &last)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the runtime's monitor off CPU 0: %w", err)
	}
	procs := runtime.GOMAXPROCS(runtime.NumCPU() + ends)
	return func() error {
		runtime.GOMAXPROCS(procs)
		return unix.SchedSetaffinity(tid, &before)
	}, nil
}

// monitorThread finds the first thread that this process has started: runtime.main
// starts the monitor before anything else.
func monitorThread() (int, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0, err
	}
	var tids []int
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return 0, err
		}
		tids = append(tids, tid)
	}
	if len(tids) < 2 {
		return 0, errors.New("there is none")
	}
	slices.Sort(tids)
	return tids[1], nil
}
