package e2e_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control/api"
)

// ender is a server that ends its connections in a way of its own, after it has
// echoed a few bytes.
func (n *node) ender(p *pod, family int, port uint16, end func(*net.TCPConn)) {
	n.Helper()
	var l *net.TCPListener
	must(n.T, p.Namespace().Do(func() (err error) {
		l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at(p.addr(family), port)))
		return err
	}))
	n.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var b [4]byte
				if _, err := io.ReadFull(c, b[:]); err != nil {
					return
				}
				_, _ = c.Write(b[:])
				end(c)
			}()
		}
	}()
}

// exchange opens a connection from a fixed port, exchanges some bytes and ends
// it in a way of its own.
func (n *node) exchange(from *pod, sport uint16, to *pod, family int, dport uint16, end func(*net.TCPConn)) error {
	c, err := dial(from.Namespace(), at(from.addr(family), sport), at(to.addr(family), dport))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("text")); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	end(c)
	return nil
}

// TestPortReuse opens connections between the same ports again and again,
// however the one before has ended.
func TestPortReuse(t *testing.T) {
	t.Parallel()
	reset := func(c *net.TCPConn) { _ = c.SetLinger(0) }
	wait := func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
	leave := func(*net.TCPConn) {}
	both := func(c *net.TCPConn) { _ = c.CloseWrite(); wait(c) }
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		ends := []struct {
			name           string
			client, server func(*net.TCPConn)
		}{
			{"client resets", reset, wait},
			{"server resets", wait, reset},
			{"server closes first", wait, leave},
			{"both close at once", both, both},
		}
		n.apply("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
			"- from: [{podSelector: {matchLabels: {role: friend}}}]\n  ports: [{port: 90, endPort: 99}]")
		for i, e := range ends {
			family, port := 4+2*(i%2), uint16(90+i)
			n.ender(n.server, family, port, e.server)
			sport := n.port()
			for round := range 12 {
				var err error
				n.eventually(e.name+": port is free", func() bool {
					// The client's own TIME_WAIT is its own affair.
					err = n.exchange(n.friend, sport, n.server, family, port, e.client)
					if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE) {
						sport = n.port()
						return false
					}
					return true
				})
				if err != nil {
					t.Fatalf("%s, round %d: %v", e.name, round, err)
				}
			}
		}
		// The other way round, on ports that were used: not allowed.
		n.probeAll(all(n.other, n.server, 90, false, "server")...)
	})
}

// TestEndedFlows sees that the end of a connection is reported, with all that
// it has carried, also what the worker never saw.
func TestEndedFlows(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		talk := n.talk(n.friend, n.server, 4, 80)
		for range 20 {
			talk.say("exchange")
		}
		sport := uint16(talk.conn.LocalAddr().(*net.TCPAddr).Port)
		must(t, talk.conn.Close())
		ended := n.event("end of the connection", func(f *api.Flow) bool {
			return f.Event == "ended" && f.Proto == "TCP" && f.Src.Pod == "friend" && f.Src.Port == sport
		})
		// 21 times 1000 bytes each way, in at least as many packets.
		for side, who := range []string{"client", "server"} {
			if ended.Packets[side] < 21 || ended.Bytes[side] < 21*1000 || ended.Bytes[side] > 21*1000*2 {
				t.Errorf("%s: %d packets, %d bytes", who, ended.Packets[side], ended.Bytes[side])
			}
		}
		if ended.DurationMs <= 0 || ended.Dst.Pod != "server" || len(ended.DecidedBy) != 1 {
			t.Errorf("ended: %+v", ended)
		}
	})
}

// TestReusedPortStays resets connections and opens others between the same
// ports at once. These live, also when they were silent for longer than a
// closed flow is remembered, and the server speaks first, who may open nothing.
func TestReusedPortStays(t *testing.T) {
	t.Parallel()
	const silence, count = 13 * time.Second, 40
	n := newPair(t, setup{})
	n.policy("mute", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Egress]")
	n.apply("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n- from: [{podSelector: {matchLabels: {role: friend}}}]")
	resume := make(chan struct{})
	n.ender(n.server, 4, 90, func(c *net.TCPConn) {
		<-resume
		_, _ = c.Write([]byte("late"))
		_, _ = io.Copy(io.Discard, c)
	})
	var conns []*net.TCPConn
	for range count {
		sport := n.port()
		open := func() *net.TCPConn {
			c, err := dial(n.friend.Namespace(), at(n.friend.v4, sport), at(n.server.v4, 90))
			must(t, err)
			must(t, c.SetDeadline(time.Now().Add(silence+patience)))
			_, err = c.Write([]byte("text"))
			must(t, err)
			_, err = io.ReadFull(c, make([]byte, 4))
			must(t, err)
			return c
		}
		c := open()
		must(t, c.SetLinger(0))
		must(t, closeNow(c))
		conns = append(conns, open())
	}
	time.Sleep(silence)
	close(resume)
	dead, end := 0, time.Now().Add(20*time.Second)
	for _, c := range conns {
		must(t, c.SetDeadline(end))
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			dead++
		}
		c.Close()
	}
	if dead > 0 {
		t.Errorf("%d of %d connections are dead", dead, count)
	}
}
