// Package sctp stands in for the library of this name in upstream's test image,
// where it asks the kernel for SCTP: here many kernels have none. It speaks as
// much of RFC 9260 as those tests need over raw IP sockets, so that what is on
// the wire is SCTP all the same: a handshake with cookies, small messages on one
// stream, each sent again until acknowledged, and an orderly end. It knows no
// multihoming, no fragments, no bundling of its own and no congestion.
package sctp

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

// rto is when what was not answered is sent again; RFC 9260 begins with it.
const (
	rto      = time.Second
	attempts = 8
)

// SCTPAddr is the address of one end.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

// Network implements net.Addr.
func (a *SCTPAddr) Network() string { return "sctp" }

// String implements net.Addr.
func (a *SCTPAddr) String() string {
	host := ""
	if len(a.IPAddrs) > 0 {
		host = a.IPAddrs[0].String()
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// ResolveSCTPAddr resolves host:port.
func ResolveSCTPAddr(_, addr string) (*SCTPAddr, error) {
	t, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, err
	}
	a := &SCTPAddr{Port: t.Port}
	if t.IP != nil {
		a.IPAddrs = []net.IPAddr{{IP: t.IP, Zone: t.Zone}}
	}
	return a, nil
}

// socket is a raw socket of one family with the associations of one local port.
// Its goroutine reads; all else is guarded by mu.
type socket struct {
	pc     *net.IPConn
	port   uint16
	accept chan *SCTPConn // nil unless it listens

	mu     sync.Mutex
	assocs map[string]*SCTPConn
}

func open(network string, port uint16, accept chan *SCTPConn) (*socket, error) {
	pc, err := net.ListenIP(network, nil)
	if err != nil {
		return nil, err
	}
	s := &socket{pc: pc, port: port, accept: accept, assocs: map[string]*SCTPConn{}}
	go s.read()
	return s, nil
}

func key(ip net.IP, port uint16) string {
	return net.JoinHostPort(ip.String(), strconv.Itoa(int(port)))
}

func (s *socket) read() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := s.pc.ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of some packet: it is sent again
		}
		if p, ok := parse(buf[:n]); ok && p.dst == s.port {
			s.mu.Lock()
			for _, c := range p.chunks {
				s.handle(from, p, c)
			}
			s.mu.Unlock()
		}
	}
}

// handle takes a chunk; mu is held.
func (s *socket) handle(from *net.IPAddr, p packet, c chunk) {
	a := s.assocs[key(from.IP, p.src)]
	if s.accept != nil && c.kind == kindInit && len(c.value) >= initLen {
		// Nothing is remembered until the cookie comes back. A lost answer makes
		// another, whose cookie is as good.
		init := parseInit(c.value)
		own := initChunk{tag: rand.Uint32() | 1, tsn: rand.Uint32()}
		s.send(from, p.src, init.tag, chunk{kind: kindInitAck, value: own.encode(cookie{own, init}.encode())})
		return
	}
	if s.accept != nil && c.kind == kindCookieEcho {
		k, ok := parseCookie(c.value)
		if !ok || p.tag != k.own.tag {
			return
		}
		if a == nil || a.own.tag != k.own.tag {
			a = newConn(s, from, p.src, k.own, k.peer)
			select {
			case s.accept <- a:
				s.assocs[key(from.IP, p.src)] = a
			default:
				return // nobody accepts: it will ask again
			}
		}
		s.send(from, p.src, a.peer.tag, chunk{kind: kindCookieAck})
		return
	}
	if a == nil || p.tag != a.own.tag {
		return
	}
	a.handle(c)
}

// send sends one chunk; mu need not be held.
func (s *socket) send(to *net.IPAddr, port uint16, tag uint32, c chunk) {
	// What is not sent is as good as lost, and sent again.
	_, _ = s.pc.WriteToIP(packet{src: s.port, dst: port, tag: tag}.encode(c), to)
}

// SCTPListener accepts associations of both families.
type SCTPListener struct {
	addr    *SCTPAddr
	sockets []*socket
	accept  chan *SCTPConn
	closed  chan struct{}
	once    sync.Once
}

// ListenSCTP listens on a port of all addresses.
func ListenSCTP(_ string, addr *SCTPAddr) (*SCTPListener, error) {
	l := &SCTPListener{addr: addr, accept: make(chan *SCTPConn, 128), closed: make(chan struct{})}
	var errs []error
	for _, network := range []string{"ip4:132", "ip6:132"} {
		s, err := open(network, uint16(addr.Port), l.accept)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.sockets = append(l.sockets, s)
	}
	if len(l.sockets) == 0 {
		return nil, fmt.Errorf("listen on %v: %w", addr, errors.Join(errs...))
	}
	return l, nil
}

// AcceptSCTP waits for an association.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Accept implements net.Listener.
func (l *SCTPListener) Accept() (net.Conn, error) { return l.AcceptSCTP() }

// Addr implements net.Listener.
func (l *SCTPListener) Addr() net.Addr { return l.addr }

// Close implements net.Listener.
func (l *SCTPListener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		for _, s := range l.sockets {
			err = errors.Join(err, s.pc.Close())
		}
	})
	return err
}

// DialSCTP sets an association up.
func DialSCTP(_ string, _, raddr *SCTPAddr) (*SCTPConn, error) {
	if len(raddr.IPAddrs) == 0 {
		return nil, fmt.Errorf("dial %v: no address", raddr)
	}
	to := raddr.IPAddrs[0]
	network := "ip6:132"
	if to.IP.To4() != nil {
		network = "ip4:132"
	}
	s, err := open(network, uint16(32768+rand.IntN(28000)), nil)
	if err != nil {
		return nil, err
	}
	c := newConn(s, &to, uint16(raddr.Port), initChunk{tag: rand.Uint32() | 1, tsn: rand.Uint32()}, initChunk{})
	s.mu.Lock()
	s.assocs[key(to.IP, c.port)] = c
	s.mu.Unlock()
	if err := c.dial(); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %v: %w", raddr, err), s.pc.Close())
	}
	return c, nil
}

// again sends until an answer has come.
func again(send func(), answer <-chan struct{}, gone <-chan struct{}) error {
	for range attempts {
		send()
		select {
		case <-answer:
			return nil
		case <-gone:
			return io.ErrClosedPipe
		case <-time.After(rto):
		}
	}
	return errors.New("i/o timeout")
}
