package dataplane

import (
	"time"

	"golang.org/x/sys/unix"
)

// clock gives CLOCK_MONOTONIC, as the kernel's flow cache uses it, and
// CLOCK_REALTIME, both without a system call.
type clock struct {
	start time.Time
	mono  int64 // CLOCK_MONOTONIC at start
}

func newClock() clock {
	var ts unix.Timespec
	// CLOCK_MONOTONIC can't fail.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return clock{start: time.Now(), mono: ts.Nano()}
}

func (c *clock) now() (mono, wall int64) {
	t := time.Now()
	return c.mono + int64(t.Sub(c.start)), t.UnixNano()
}
