package e2e_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func unwrapErrno(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}

// talk is a TCP connection to an echo server.
type talk struct {
	n    *node
	conn *net.TCPConn
}

// talk opens a connection between two pods.
func (n *node) talk(from, to *pod, family int, dport uint16) *talk {
	n.Helper()
	return n.talkTo(from, at(to.addr(family), dport))
}

func (n *node) talkTo(from *pod, dst netip.AddrPort) *talk {
	n.Helper()
	src := from.v4
	if dst.Addr().Is6() {
		src = from.v6
	}
	conn, err := dial(from.Namespace(), at(src, n.port()), dst)
	if err != nil {
		n.Fatalf("%s to %v: %v", from.name, dst, err)
	}
	n.Cleanup(func() { conn.Close() })
	t := &talk{n, conn}
	t.say("connected")
	return t
}

// say sends some bytes and wants them back.
func (t *talk) say(what string) {
	t.n.Helper()
	if err := t.try(patience); err != nil {
		t.n.Fatalf("%s: %v", what, err)
	}
}

func (t *talk) try(wait time.Duration) error {
	sent, got := make([]byte, 1000), make([]byte, 1000)
	_, _ = rand.Read(sent)
	if err := t.conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := t.conn.Write(sent); err != nil {
		return err
	}
	if _, err := io.ReadFull(t.conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return errors.New("other bytes came back")
	}
	return nil
}

// cut sends some bytes and wants silence; they may come back later.
func (t *talk) cut(what string) *talk {
	t.n.Helper()
	if err := t.conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		t.n.Fatal(err)
	}
	if _, err := t.conn.Write(make([]byte, 100)); err != nil {
		t.n.Fatalf("%s: %v", what, err)
	}
	if size, err := t.conn.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.n.Fatalf("%s: read %d bytes, %v, want silence", what, size, err)
	}
	return t
}

// resumes wants the bytes of one cut back.
func (t *talk) resumes(what string) {
	t.n.Helper()
	must(t.n.T, t.conn.SetDeadline(time.Now().Add(patience)))
	if _, err := io.ReadFull(t.conn, make([]byte, 100)); err != nil {
		t.n.Fatalf("%s: %v", what, err)
	}
	t.say(what)
}

// retransmits is how many segments this end has sent again so far, but for those that
// the other end says it has twice: a machine that stands still sends again what is only
// late.
func (t *talk) retransmits() int {
	t.n.Helper()
	raw, err := t.conn.SyscallConn()
	must(t.n.T, err)
	total := 0
	must(t.n.T, raw.Control(func(fd uintptr) {
		if info, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); e == nil {
			total = int(info.Total_retrans) - int(info.Dsack_dups)
		} else {
			err = e
		}
	}))
	must(t.n.T, err)
	return total
}
