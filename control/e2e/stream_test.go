package e2e_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// stream is numbered datagrams that one end sends at a moderate rate and an
// echo server returns: what is lost on the way, or doubled, shows.
type stream struct {
	n    *node
	conn *net.UDPConn
	sent atomic.Uint64
	stop chan struct{}
	wg   sync.WaitGroup

	mu   sync.Mutex
	seen map[uint64]int

	overrun uint64 // backlogDrops at the start
}

const streamEvery = 2 * time.Millisecond

// stream starts a stream from a new port of src to an echo server at dst.
func (n *node) stream(from *netlab.Namespace, src, dst netip.Addr, dport uint16) *stream {
	n.Helper()
	s := &stream{n: n, stop: make(chan struct{}), seen: make(map[uint64]int), overrun: backlogDrops(n)}
	must(n.T, from.Do(func() (err error) {
		s.conn, err = net.DialUDP("udp", &net.UDPAddr{IP: src.AsSlice(), Port: int(n.port())}, &net.UDPAddr{IP: dst.AsSlice(), Port: int(dport)})
		return err
	}))
	s.wg.Go(s.send)
	s.wg.Go(s.receive)
	n.Cleanup(s.close)
	return s
}

// podStream starts one between two pods, over the given family, and waits until
// it flows.
func (n *node) podStream(from, to *pod, family int, dport uint16) *stream {
	n.Helper()
	s := n.stream(from.Namespace(), from.addr(family), to.addr(family), dport)
	s.flows()
	return s
}

func (s *stream) send() {
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	var b [64]byte
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			binary.BigEndian.PutUint64(b[:], s.sent.Load())
			if _, err := s.conn.Write(b[:]); err == nil {
				s.sent.Add(1)
			}
		}
	}
}

func (s *stream) receive() {
	var b [128]byte
	for {
		size, err := s.conn.Read(b[:])
		switch {
		case err == nil && size == 64:
			s.mu.Lock()
			s.seen[binary.BigEndian.Uint64(b[:])]++
			s.mu.Unlock()
		case err != nil && !isRefused(err):
			return
		}
	}
}

// isRefused tells an ICMP error of an earlier datagram from a closed socket.
func isRefused(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && (op.Timeout() || unwrapErrno(op.Err) == unix.ECONNREFUSED)
}

// flows waits until datagrams that are sent from now on come back.
func (s *stream) flows() {
	s.n.Helper()
	from := s.sent.Load()
	s.n.eventually("stream flows", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := from; i < s.sent.Load(); i++ {
			if s.seen[i] > 0 {
				return true
			}
		}
		return false
	})
}

// mark names a place in the stream: what is sent from now on is behind it.
func (s *stream) mark() uint64 { return s.sent.Load() }

// after waits until so many more datagrams have been sent.
func (s *stream) after(count uint64) {
	s.n.Helper()
	from := s.sent.Load()
	s.n.eventually("stream goes on", func() bool { return s.sent.Load() >= from+count })
}

// underWay is for how long a datagram may be so that is not expected to come back.
const underWay = 2 * time.Second

// lost lists the datagrams of [from, to) that don't come back within some time.
func (s *stream) lost(from, to uint64, wait time.Duration) []uint64 {
	var missing []uint64
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		missing = missing[:0]
		s.mu.Lock()
		for i := from; i < to; i++ {
			if s.seen[i] == 0 {
				missing = append(missing, i)
			}
		}
		s.mu.Unlock()
		if len(missing) == 0 || time.Now().After(end) {
			return missing
		}
	}
}

// intact fails the test if anything since from was lost, beyond what the kernel
// says that it threw away because the machine's backlog was full.
func (s *stream) intact(what string, from uint64) {
	s.n.Helper()
	to := s.sent.Load()
	if to == from {
		s.n.Errorf("%s: nothing was sent", what)
	}
	if missing := s.lost(from, to, patience/6); len(missing) > 0 {
		overrun := backlogDrops(s.n) - s.overrun
		report := s.n.Errorf
		if uint64(len(missing)) <= overrun {
			report = s.n.Logf
		}
		report("%s: %d of %d datagrams lost, numbers %d to %d; %d packets overran the backlog", what,
			len(missing), to-from, missing[0], missing[len(missing)-1], overrun)
	}
}

// silent fails the test if anything of the next datagrams comes back.
func (s *stream) silent(what string) {
	s.n.Helper()
	from := s.mark()
	s.after(100)
	to := s.mark()
	if back := int(to-from) - len(s.lost(from, to, underWay)); back > 0 {
		s.n.Errorf("%s: %d of %d datagrams came back", what, back, to-from)
	}
}

// backlogDrops is how many packets all CPUs together dropped because too many
// waited: all namespaces of the machine share that queue, so another's flood,
// of a benchmark for one, can cost a stream of ours.
func backlogDrops(n *node) uint64 {
	n.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	must(n.T, err)
	total := uint64(0)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			drops, err := strconv.ParseUint(fields[1], 16, 32)
			must(n.T, err)
			total += drops
		}
	}
	return total
}

func (s *stream) close() {
	select {
	case <-s.stop:
		return
	default:
	}
	close(s.stop)
	s.conn.Close()
	s.wg.Wait()
}
