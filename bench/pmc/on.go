//go:build pmc

package pmc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// events are what is counted, if the machine can; hardware cycles come first.
var events = []struct {
	name   string
	config uint64
}{
	{"cycles/op", unix.PERF_COUNT_HW_CPU_CYCLES},
	{"instructions/op", unix.PERF_COUNT_HW_INSTRUCTIONS},
	{"branch-misses/op", unix.PERF_COUNT_HW_BRANCH_MISSES},
	{"cache-misses/op", unix.PERF_COUNT_HW_CACHE_MISSES},
}

var complain sync.Once

// Count begins to count, and returns what ends it and reports.
func Count(b *testing.B) func() {
	runtime.LockOSThread() // the counters are a thread's
	fds, err := open()
	if err != nil {
		runtime.UnlockOSThread()
		complain.Do(func() { fmt.Fprintf(os.Stderr, "pmc: this machine shows no hardware counters: %v\n", err) })
		return func() {}
	}
	return func() {
		defer runtime.UnlockOSThread()
		for i, fd := range fds {
			if fd < 0 {
				continue
			}
			if n, err := read(fd); err == nil {
				b.ReportMetric(n/float64(b.N), events[i].name)
			}
			unix.Close(fd)
		}
	}
}

// open opens the counters of this thread, -1 for those that there are not.
func open() (fds []int, err error) {
	for _, e := range events {
		attr := unix.PerfEventAttr{
			Type: unix.PERF_TYPE_HARDWARE, Config: e.config,
			Bits:        unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
			Read_format: unix.PERF_FORMAT_TOTAL_TIME_ENABLED | unix.PERF_FORMAT_TOTAL_TIME_RUNNING,
		}
		attr.Size = unix.PERF_ATTR_SIZE_VER7
		fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil && len(fds) == 0 {
			return nil, fmt.Errorf("open counter of cycles: %w", err)
		}
		if err != nil {
			fd = -1
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// read returns a count, scaled up if the counter was shared with others.
func read(fd int) (float64, error) {
	var buf [24]byte
	if n, err := unix.Read(fd, buf[:]); err != nil || n != len(buf) {
		return 0, errors.Join(errors.New("short read"), err)
	}
	count, enabled, running := binary.NativeEndian.Uint64(buf[:]), binary.NativeEndian.Uint64(buf[8:]), binary.NativeEndian.Uint64(buf[16:])
	if running == 0 {
		return 0, errors.New("never counted")
	}
	return float64(count) * float64(enabled) / float64(running), nil
}
