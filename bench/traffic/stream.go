package traffic

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is one TCP flow that sends as much as it can from client to server.
type Stream struct {
	Client, Server End
	To             netip.AddrPort // an address of the server's namespace
	Warmup         time.Duration
	Duration       time.Duration
}

// StreamResult is what arrived in the measured time.
type StreamResult struct {
	Bytes   uint64
	Elapsed time.Duration
	// Retransmits are segments sent again; DSACKs are those of them of which
	// the server said that it had had them already, so that they were spurious.
	Retransmits, DSACKs uint64
	RTT                 time.Duration // smoothed, at the end
}

// GbitPerSecond is the rate of payload at the receiver.
func (r StreamResult) GbitPerSecond() float64 {
	return float64(r.Bytes) * 8 / 1e9 / r.Elapsed.Seconds()
}

const streamBuffer = 256 << 10

// Run measures the stream.
func (s Stream) Run(ctx context.Context) (r StreamResult, err error) {
	c := newCrew(ctx)
	var received atomic.Uint64
	listening, connected := make(chan struct{}), make(chan int, 1)
	c.hire(s.Server, "stream server", func() error { return drain(c, s.Server, s.To, listening, &received) })
	defer func() {
		err = c.dismiss(err)
		if len(connected) > 0 {
			unix.Close(<-connected)
		}
	}()
	if _, err := await(c, listening); err != nil {
		return r, err
	}
	c.hire(s.Client, "stream client", func() error { return pour(c, s.Client, s.To, connected) })
	fd, err := await(c, connected)
	if err != nil {
		return r, err
	}
	connected <- fd // closed when no thread uses it any more
	if err := c.sleep(s.Warmup); err != nil {
		return r, err
	}
	before, err := readTCPInfo(fd)
	if err != nil {
		return r, err
	}
	start, had := time.Now(), received.Load()
	if err := c.sleep(s.Duration); err != nil {
		return r, err
	}
	r.Bytes, r.Elapsed = received.Load()-had, time.Since(start)
	after, err := readTCPInfo(fd)
	if err != nil {
		return r, err
	}
	r.Retransmits = uint64(after.Total_retrans - before.Total_retrans)
	r.DSACKs = uint64(after.Dsack_dups - before.Dsack_dups)
	r.RTT = time.Duration(after.Rtt) * time.Microsecond
	if r.Bytes == 0 {
		return r, fmt.Errorf("stream to %v: %w", s.To, ErrNothing)
	}
	return r, nil
}

// pour connects and sends until the crew ends. The caller closes the socket.
func pour(c *crew, e End, to netip.AddrPort, connected chan<- int) error {
	fd, err := e.dial(to)
	if err != nil {
		return err
	}
	connected <- fd
	buf := make([]byte, streamBuffer)
	for !c.stopped() {
		if _, err := unix.Write(fd, buf); err != nil && !again(err) {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// drain accepts one connection and counts what it receives until its end.
func drain(c *crew, e End, at netip.AddrPort, listening chan<- struct{}, received *atomic.Uint64) error {
	l, err := e.listen(at)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	close(listening)
	fd, err := accept(l, c.stopped)
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, streamBuffer)
	for !c.stopped() {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil && n == 0:
			return nil
		case err == nil:
			received.Add(uint64(n))
		case !again(err):
			return fmt.Errorf("receive: %w", err)
		}
	}
	return nil
}

func readTCPInfo(fd int) (*unix.TCPInfo, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return nil, fmt.Errorf("read TCP_INFO: %w", err)
	}
	return info, nil
}
