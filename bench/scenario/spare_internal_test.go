package scenario

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSpare(t *testing.T) {
	allowed := func() (set unix.CPUSet) {
		tid, err := monitorThread()
		if err == nil {
			err = unix.SchedGetaffinity(tid, &set)
		}
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	before, procs := allowed(), runtime.GOMAXPROCS(0)
	release, err := spare()
	if err != nil {
		t.Fatal(err)
	}
	if set := allowed(); set.Count() != 1 || !set.IsSet(loopCPU()) {
		t.Errorf("the monitor runs on %d CPUs, want the last one", set.Count())
	}
	if n := runtime.GOMAXPROCS(0); n < ends {
		t.Errorf("%d threads may run Go at a time, want %d and more", n, ends)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if allowed() != before || runtime.GOMAXPROCS(0) != procs {
		t.Error("not as before")
	}
}
