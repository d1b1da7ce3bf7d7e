package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Connect is connections, one after the other: connect, a byte to the server, a
// byte back, close. The server closes first, as servers of short requests do,
// so that the client's ports are free again at once.
type Connect struct {
	Client, Server End
	To             netip.AddrPort
	Parallel       int // clients, each a thread; as many threads serve them
	Warmup         time.Duration
	Duration       time.Duration
}

// ConnectResult is what was completed in the measured time.
type ConnectResult struct {
	Connections uint64
	Elapsed     time.Duration
	Latency     *Histogram // from connect to the server's close
}

// PerSecond is the rate of complete connections.
func (r ConnectResult) PerSecond() float64 { return float64(r.Connections) / r.Elapsed.Seconds() }

// Run measures connections.
func (q Connect) Run(ctx context.Context) (r ConnectResult, err error) {
	c := newCrew(ctx)
	listener := make(chan int, 1)
	fd := -1
	defer func() {
		err = c.dismiss(err)
		if fd >= 0 {
			unix.Close(fd)
		}
	}()
	c.hire(q.Server, "connection server", func() error {
		fd, err := q.Server.listen(q.To)
		if err == nil {
			listener <- fd
		}
		return err
	})
	if fd, err = await(c, listener); err != nil {
		return r, err
	}
	for range q.Parallel {
		c.hire(q.Server, "connection server", func() error { return serveShort(c, fd) })
	}
	done := make(chan *Histogram, q.Parallel)
	begin := time.Now().Add(q.Warmup)
	for range q.Parallel {
		c.hire(q.Client, "connection client", func() error {
			h, err := q.connect(c, begin)
			if err == nil {
				done <- h
			}
			return err
		})
	}
	r.Latency, r.Elapsed = &Histogram{}, q.Duration
	for range q.Parallel {
		h, err := await(c, done)
		if err != nil {
			return r, err
		}
		r.Latency.Merge(h)
	}
	r.Connections = r.Latency.Count()
	if r.Connections == 0 {
		return r, fmt.Errorf("connections to %v: %w", q.To, ErrNothing)
	}
	return r, nil
}

// connect makes connections until the measured time ends; it counts those that
// end within it.
func (q Connect) connect(c *crew, begin time.Time) (*Histogram, error) {
	h := &Histogram{}
	end := begin.Add(q.Duration)
	for {
		if c.stopped() {
			return h, context.Cause(c.ctx)
		}
		start := time.Now()
		if err := connectOnce(q.Client, q.To); err != nil {
			return h, err
		}
		now := time.Now()
		if !now.Before(end) {
			return h, nil
		}
		if now.After(begin) {
			h.Record(now.Sub(start))
		}
	}
}

func connectOnce(e End, to netip.AddrPort) error {
	fd, err := e.dial(to)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := []byte{1}
	if err := exchange(fd, buf); err != nil {
		return err
	}
	for waited := time.Duration(0); ; waited += lookUp {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil && n == 0:
			return nil
		case err == nil:
			return errors.New("more than one byte came back")
		case !again(err):
			return fmt.Errorf("await close: %w", err)
		case waited >= answerPatience:
			return fmt.Errorf("server did not close in %v", answerPatience)
		}
	}
}

// serveShort accepts connections, one at a time, and sends one byte back on
// each.
func serveShort(c *crew, listener int) error {
	buf := []byte{0}
	for {
		fd, err := accept(listener, c.stopped)
		if err != nil || fd < 0 {
			return err
		}
		for !c.stopped() {
			n, err := unix.Read(fd, buf)
			if again(err) {
				continue
			}
			if err == nil && n == 1 {
				unix.Write(fd, buf) // the client sees to it that it arrives
			}
			break
		}
		unix.Close(fd)
	}
}
