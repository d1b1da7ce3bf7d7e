// Package traffic makes real traffic and counts what arrives: TCP streams,
// request and response, connections by the thousand, and floods of small UDP
// packets out of real sockets, each end in a network namespace of its own.
//
// Every generator runs on OS threads of its own, entered into their namespace
// and pinned if asked, with blocking sockets: what is measured is the kernel's
// path, not the runtime's network poller. A thread ends with its generator,
// and so do its namespace and its affinity. Nothing here sets up links,
// addresses or policies.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Space is a network namespace.
type Space interface {
	// Enter moves the calling thread into the namespace for good.
	Enter() error
}

// AnyCPU leaves a thread to the scheduler.
const AnyCPU = -1

// End is one end of the traffic: where its threads run.
type End struct {
	Space Space
	CPU   int // or AnyCPU
	// Congestion is the congestion control of its TCP sockets; "": the kernel's
	// choice.
	Congestion string
}

// crew is the threads of one generator. The first that fails ends all.
type crew struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

var errEnd = errors.New("end of measurement")

// ErrNothing is that not even one of what is counted came to its end in the
// measured time: it was too short, or nothing gets through.
var ErrNothing = errors.New("nothing came in the measured time")

func newCrew(ctx context.Context) *crew {
	c := &crew{}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// hire runs f on a thread of its own at the end.
func (c *crew) hire(e End, what string, f func() error) {
	c.wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread must not be reused
		err := e.Space.Enter()
		if err == nil {
			err = pin(e.CPU)
		}
		if err == nil {
			err = f()
		}
		if err != nil {
			c.cancel(fmt.Errorf("%s: %w", what, err))
		}
	})
}

// stopped reports whether the threads should end.
func (c *crew) stopped() bool { return c.ctx.Err() != nil }

// sleep waits, or returns early with the reason why the crew ended.
func (c *crew) sleep(d time.Duration) error {
	select {
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-time.After(d):
		return nil
	}
}

// dismiss ends all threads, waits for them, and adds to err what failed.
func (c *crew) dismiss(err error) error {
	c.cancel(errEnd)
	c.wg.Wait()
	cause := context.Cause(c.ctx)
	if cause == errEnd || errors.Is(err, cause) {
		return err
	}
	return errors.Join(err, cause)
}

// await returns what a thread says first, or why the crew ended before.
func await[T any](c *crew, from <-chan T) (T, error) {
	select {
	case v := <-from:
		return v, nil
	case <-c.ctx.Done():
		var none T
		return none, context.Cause(c.ctx)
	}
}

func pin(cpu int) error {
	if cpu == AnyCPU {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread to CPU %d: %w", cpu, err)
	}
	return nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
