package traffic

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets one sendmmsg sends.
const batchSize = 64

// The ports of a flood: destinations from FirstPort to LastPort, so that
// servers below it are left alone, and one source port a socket.
const (
	FirstPort  = 4096
	LastPort   = 65535
	firstLocal = 20000
)

// Flood is small UDP packets, as many as one thread can send: real sockets,
// real skbs of the kernel's stack, sendmmsg in batches of 64.
type Flood struct {
	Client       End
	From, To     netip.Addr
	PayloadBytes int
	// Sockets are source ports, Ports destination ports for each: their product
	// is the number of flows. Packets of successive flows follow each other in
	// random order, all flows of one socket after all of the one before.
	Sockets, Ports int
	// Once ends the flood when every flow has had its packet.
	Once bool
}

// Flooding is a flood under way.
type Flooding struct {
	crew *crew
	sent atomic.Uint64
	done chan struct{}
	// Of a Blast, in ns since its start: the most that it has been behind, and
	// when numbered packets began and ended.
	lag, began, ended atomic.Int64
}

// Start starts a flood that lasts until Stop.
func (f Flood) Start(ctx context.Context) (*Flooding, error) {
	if f.Sockets < 1 || f.Ports < 1 || f.Ports > LastPort-FirstPort+1 {
		return nil, fmt.Errorf("flood of %d sockets with %d ports each: want at least one and %d ports at most",
			f.Sockets, f.Ports, LastPort-FirstPort+1)
	}
	g := &Flooding{crew: newCrew(ctx), done: make(chan struct{})}
	ready := make(chan struct{})
	g.crew.hire(f.Client, "flood", func() error { return f.send(g, ready) })
	if _, err := await(g.crew, ready); err != nil {
		return nil, g.crew.dismiss(err)
	}
	return g, nil
}

// Sent is how many packets the kernel has taken so far.
func (g *Flooding) Sent() uint64 { return g.sent.Load() }

// Done is closed when a flood that is sent Once has sent all.
func (g *Flooding) Done() <-chan struct{} { return g.done }

// Stop ends the flood and returns what went wrong with it.
func (g *Flooding) Stop() error { return g.crew.dismiss(nil) }

func (f Flood) send(g *Flooding, ready chan<- struct{}) (err error) {
	fds := make([]int, 0, f.Sockets)
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for i := range f.Sockets {
		fd, err := udpSocket(netip.AddrPortFrom(f.From, uint16(firstLocal+i)))
		if err != nil {
			return err
		}
		fds = append(fds, fd)
		if f.Ports == 1 { // connected, it needs no route for each packet
			if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(f.To, FirstPort))); err != nil {
				return fmt.Errorf("connect UDP: %w", err)
			}
		}
	}
	to := f.destinations()
	m := newMessage(make([]byte, f.PayloadBytes))
	close(ready)
	for {
		for _, fd := range fds {
			for at := 0; at < len(to); {
				if g.crew.stopped() {
					return nil
				}
				n := min(batchSize, len(to)-at)
				if f.Ports > 1 {
					m.address(to[at : at+n])
				}
				sent, err := m.send(fd, n)
				switch {
				case err == nil:
				case again(err) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ECONNREFUSED):
				default:
					return fmt.Errorf("send: %w", err)
				}
				g.sent.Add(uint64(sent))
				at += sent
			}
		}
		if f.Once {
			close(g.done)
			return nil
		}
	}
}

// destinations lists the ports in a random order that is always the same; few
// flows are repeated to fill a batch.
func (f Flood) destinations() []rawAddr {
	r := rand.New(rand.NewPCG(0x51, 0x1ce))
	order := r.Perm(f.Ports)
	repeat := 1
	if !f.Once {
		repeat = (batchSize + f.Ports - 1) / f.Ports
	}
	to := make([]rawAddr, 0, f.Ports*repeat)
	for range repeat {
		for _, p := range order {
			to = append(to, rawAddrFrom(netip.AddrPortFrom(f.To, uint16(FirstPort+p))))
		}
	}
	return to
}

func udpSocket(from netip.AddrPort) (int, error) {
	fd, err := unix.Socket(family(from.Addr()), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		setTimeouts(fd, lookUp),
		unix.Bind(fd, sockaddr(from)),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind UDP %v: %w", from, err)
	}
	return fd, nil
}
