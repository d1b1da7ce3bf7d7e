package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
)

// EchoTCP serves TCP at an address of the namespace: all that a client sends
// comes back. Closing it ends its connections as well.
func (ns *Namespace) EchoTCP(at netip.AddrPort) (io.Closer, error) {
	var l net.Listener
	err := ns.Do(func() (err error) {
		// A keep-alive would open the flow of a silent connection from this end.
		lc := net.ListenConfig{KeepAlive: -1}
		l, err = lc.Listen(context.Background(), "tcp", at.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve TCP in %s: %w", ns.name, err)
	}
	e := &echoTCP{listener: l, conns: map[net.Conn]struct{}{}}
	e.done.Go(e.accept)
	return e, nil
}

type echoTCP struct {
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func (e *echoTCP) accept() {
	for {
		conn, err := e.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // that one connection broke before it was accepted
		}
		if !e.keep(conn) {
			conn.Close()
			return
		}
		e.done.Go(func() {
			defer e.drop(conn)
			io.Copy(conn, conn) // a broken connection is its client's affair
		})
	}
}

func (e *echoTCP) keep(conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.conns[conn] = struct{}{}
	return true
}

func (e *echoTCP) drop(conn net.Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, conn)
	conn.Close()
}

// Close ends the server and returns when nothing of it is left.
func (e *echoTCP) Close() error {
	err := e.listener.Close()
	e.mu.Lock()
	e.closed = true
	for conn := range e.conns {
		conn.Close()
	}
	e.mu.Unlock()
	e.done.Wait()
	return err
}

// EchoUDP serves UDP at an address of the namespace: each datagram goes back to
// its sender.
func (ns *Namespace) EchoUDP(at netip.AddrPort) (io.Closer, error) {
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve UDP in %s: %w", ns.name, err)
	}
	e := &echoUDP{conn: conn}
	e.done.Go(e.serve)
	return e, nil
}

type echoUDP struct {
	conn *net.UDPConn
	done sync.WaitGroup
}

func (e *echoUDP) serve() {
	buf := make([]byte, 65536)
	for {
		size, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			e.conn.WriteToUDPAddrPort(buf[:size], from) // a lost reply is lost, as on any network
		}
	}
}

// Close ends the server and returns when nothing of it is left.
func (e *echoUDP) Close() error {
	err := e.conn.Close()
	e.done.Wait()
	return err
}
