package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Concurrent is many TCP connections that are open at a time (RFC 9411, 7.5): all are
// made, one after the other, and then a byte goes there and back on one after the
// other, in random order, so that no flow is the one that was looked up last.
type Concurrent struct {
	Client, Server End
	To             netip.AddrPort
	Connections    int
	Duration       time.Duration // of the exchanges; there is one on each at least
}

// ConcurrentResult is what came of it.
type ConcurrentResult struct {
	Connections int
	SetUp       time.Duration // of all of them
	Latency     *Histogram    // of exchanges, when all were open
}

// PerSecond is the rate at which connections were made.
func (r ConcurrentResult) PerSecond() float64 { return float64(r.Connections) / r.SetUp.Seconds() }

// Run makes the connections and measures them. One that fails, or is lost while it
// is held, is an error.
func (q Concurrent) Run(ctx context.Context) (r ConcurrentResult, err error) {
	if q.Connections < 1 || q.Connections > LastPort-FirstPort {
		return r, fmt.Errorf("%d concurrent connections: want 1 to %d", q.Connections, LastPort-FirstPort)
	}
	if err := roomForFiles(uint64(2*q.Connections) + 256); err != nil {
		return r, err
	}
	c := newCrew(ctx)
	defer func() { err = c.dismiss(err) }()
	listening := make(chan struct{})
	c.hire(q.Server, "server of concurrent connections", func() error { return answerAll(c, q.Server, q.To, listening) })
	if _, err := await(c, listening); err != nil {
		return r, err
	}
	done := make(chan ConcurrentResult, 1)
	c.hire(q.Client, "client of concurrent connections", func() error {
		r, err := q.hold(c)
		if err == nil {
			done <- r
		}
		return err
	})
	return await(c, done)
}

func (q Concurrent) hold(c *crew) (r ConcurrentResult, err error) {
	fds := make([]int, 0, q.Connections)
	defer func() {
		for _, fd := range fds {
			// At once, and without a trace: there are many of them.
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Close(fd)
		}
	}()
	begin := time.Now()
	for len(fds) < q.Connections {
		if c.stopped() {
			return r, context.Cause(c.ctx)
		}
		fd, err := q.Client.dial(q.To)
		if err != nil {
			return r, fmt.Errorf("with %d open: %w", len(fds), err)
		}
		fds = append(fds, fd)
	}
	r.Connections, r.SetUp, r.Latency = len(fds), time.Since(begin), &Histogram{}
	order := rand.New(rand.NewPCG(0x51, 0x1ce)).Perm(len(fds))
	buf := []byte{0}
	last := time.Now()
	for i, end := 0, last.Add(q.Duration); i < len(order) || last.Before(end); i++ {
		if c.stopped() {
			return r, context.Cause(c.ctx)
		}
		if err := exchange(fds[order[i%len(order)]], buf); err != nil {
			return r, fmt.Errorf("with %d open: %w", len(fds), err)
		}
		now := time.Now()
		r.Latency.Record(now.Sub(last))
		last = now
	}
	return r, nil
}

// answerAll accepts all connections, on one thread, and sends each byte back.
func answerAll(c *crew, e End, at netip.AddrPort, listening chan<- struct{}) (err error) {
	l, err := e.listen(at)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	defer unix.Close(ep)
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	watch := func(fd int) error {
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return fmt.Errorf("watch connection: %w", err)
		}
		return nil
	}
	if err := watch(l); err != nil {
		return err
	}
	close(listening)
	events, buf := make([]unix.EpollEvent, batchSize), []byte{0}
	for !c.stopped() {
		n, err := unix.EpollWait(ep, events, int(lookUp.Milliseconds()))
		if err != nil && !again(err) {
			return fmt.Errorf("wait for connections: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			if fd == l {
				if fd, err = accept(l, c.stopped); err != nil || fd < 0 {
					return err
				}
				fds = append(fds, fd)
				if err := watch(fd); err != nil {
					return err
				}
				continue
			}
			n, err := unix.Read(fd, buf)
			switch {
			case closed(err) || err == nil && n == 0: // the measurement has ended
				unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, fd, nil) // closed with all others
				continue
			case err == nil:
				_, err = unix.Write(fd, buf)
			}
			if err != nil && !again(err) && !closed(err) {
				return fmt.Errorf("answer: %w", err)
			}
		}
	}
	return nil
}

// roomForFiles lets this process have so many files open.
func roomForFiles(n uint64) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	if l.Cur >= n {
		return nil
	}
	l.Cur, l.Max = n, max(n, l.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("let %d files be open: %w", n, err)
	}
	return nil
}
