package scenario

import (
	"errors"
	"fmt"
	"os"
)

// keepAwake asks the kernel to let no CPU sleep any deeper than it can wake up
// from at once, until release is called: as tuned's profile network-latency does
// (Documentation/power/pm_qos_interface.rst). Virtual machines then poll for work
// in place of halting, which costs tens of microseconds a time.
func keepAwake() (release func() error, err error) {
	f, err := os.OpenFile("/dev/cpu_dma_latency", os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("keep CPUs awake: %w", err)
	}
	if _, err := f.Write(make([]byte, 4)); err != nil { // 0 µs, in 32 bits
		return nil, errors.Join(fmt.Errorf("keep CPUs awake: %w", err), f.Close())
	}
	return f.Close, nil
}
