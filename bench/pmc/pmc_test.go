//go:build pmc

package pmc_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/pmc"
)

// Where there are counters, a benchmark has them; an independent look decides
// whether there are.
func TestCount(t *testing.T) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES, Size: unix.PERF_ATTR_SIZE_VER0, Bits: unix.PerfBitExcludeKernel}
	fd, none := unix.PerfEventOpen(&attr, os.Getpid(), -1, -1, 0)
	if none == nil {
		unix.Close(fd)
	}
	sum := 0
	r := testing.Benchmark(func(b *testing.B) {
		defer pmc.Count(b)()
		for b.Loop() {
			for i := range 1000 {
				sum += i * sum
			}
		}
	})
	cycles, ok := r.Extra["cycles/op"]
	if ok != (none == nil) || ok && cycles < 300 {
		t.Errorf("counters: %v; got %v", none, r)
	}
}
