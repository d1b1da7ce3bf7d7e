package netlab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Result is what the packets of one probe did.
type Result struct {
	Passed bool   // they arrived, and for TCP and UDP an answer came back
	Seen   string // the same in words
}

// A denied connection shows only by silence. Long enough for a TCP client to
// send its SYN again after one second, and for some jitter.
const (
	patience      = 2500 * time.Millisecond
	morePatience  = 2 * time.Second
	nonceLen      = 16
	firstInterval = 200 * time.Millisecond
)

// patienceKey is where a context says for how much longer a probe waits.
type patienceKey struct{}

// Patiently has probes wait so much longer for what should come, however busy the
// machine is: for answers only, datagrams are sent no more often than otherwise.
func Patiently(ctx context.Context, longer time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, longer)
}

func longer(ctx context.Context) time.Duration {
	d, _ := ctx.Value(patienceKey{}).(time.Duration)
	return d
}

// ProbeTCP opens a new connection from src, an address of the namespace, to an
// echo server at dst, and sends some bytes there and back. An error means that
// the probe says nothing about the path.
func (ns *Namespace) ProbeTCP(ctx context.Context, src, dst netip.AddrPort) (Result, error) {
	var fd int
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(family(src), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("open TCP socket in %s: %w", ns.name, err)
	}
	f := os.NewFile(uintptr(fd), "tcp") // non-blocking: the runtime's poller waits
	defer f.Close()
	if err := unix.Bind(fd, sockaddr(src)); err != nil {
		return Result{}, fmt.Errorf("bind %v in %s: %w", src, ns.name, err)
	}
	stop := context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err = connect(f, dst, patience)
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && synsResent(f) == 0 {
		err = awaitConnected(f, morePatience) // a busy machine: one SYN is no evidence
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil && longer(ctx) > 0 {
		err = awaitConnected(f, longer(ctx))
	}
	switch {
	case ctx.Err() != nil:
		return Result{}, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Result{Seen: fmt.Sprintf("no answer to %d SYNs", 1+synsResent(f))}, nil
	case errors.Is(err, unix.ECONNREFUSED):
		return Result{Passed: true, Seen: "connection refused"}, nil
	case err != nil:
		return Result{}, fmt.Errorf("connect %v to %v: %w", src, dst, err)
	}
	sent := nonce()
	got := make([]byte, nonceLen)
	f.SetDeadline(time.Now().Add(patience + longer(ctx)))
	if _, err := f.Write(sent); err != nil {
		return Result{}, fmt.Errorf("connected %v to %v, but can't send: %w", src, dst, err)
	}
	if _, err := io.ReadFull(f, got); err != nil {
		return Result{}, fmt.Errorf("connected %v to %v, but no data came back: %w", src, dst, err)
	}
	if !bytes.Equal(got, sent) {
		return Result{}, fmt.Errorf("connected %v to %v, but other data came back", src, dst)
	}
	return Result{Passed: true, Seen: "connected, echoed"}, nil
}

// DialTCP connects from any address of the namespace to dst.
func (ns *Namespace) DialTCP(ctx context.Context, dst netip.AddrPort) (conn net.Conn, err error) {
	err = ns.Do(func() error {
		d := net.Dialer{Timeout: patience}
		conn, err = d.DialContext(ctx, "tcp", dst.String())
		return err
	})
	return conn, err
}

// connect starts connecting and waits for the end of it.
func connect(f *os.File, dst netip.AddrPort, wait time.Duration) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var started error
	if err := raw.Control(func(fd uintptr) { started = unix.Connect(int(fd), sockaddr(dst)) }); err != nil {
		return err
	}
	if started == nil || started != unix.EINPROGRESS {
		return started
	}
	return awaitConnected(f, wait)
}

func awaitConnected(f *os.File, wait time.Duration) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	f.SetDeadline(time.Now().Add(wait))
	var ended error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			ended = err
		case code != 0:
			ended = syscall.Errno(code)
		default:
			_, err := unix.Getpeername(int(fd))
			return err == nil // else still under way
		}
		return true
	})
	return errors.Join(err, ended)
}

func synsResent(f *os.File) int {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	resent := 0
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			resent = int(info.Total_retrans)
		}
	})
	return resent
}

// ProbeUDP sends datagrams from src, an address of the namespace, to an echo
// server at dst until one comes back.
func (ns *Namespace) ProbeUDP(ctx context.Context, src, dst netip.AddrPort) (Result, error) {
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(src), net.UDPAddrFromAddrPort(dst))
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("open UDP socket in %s: %w", ns.name, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sent, got := nonce(), make([]byte, 2*nonceLen)
	tries := 0
	end := time.Now().Add(patience)
	for interval := firstInterval; time.Now().Before(end); interval *= 2 {
		// An ICMP error of an earlier datagram may surface here: it is no echo.
		_, err := conn.Write(sent)
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return Result{}, fmt.Errorf("send %v to %v: %w", src, dst, err)
		}
		tries++
		until := time.Now().Add(interval)
		if until.After(end) {
			until = end.Add(longer(ctx)) // for what was sent last
		}
		conn.SetReadDeadline(until)
		for {
			size, err := conn.Read(got)
			if ctx.Err() != nil {
				return Result{}, ctx.Err()
			}
			if err != nil {
				break
			}
			if bytes.Equal(got[:size], sent) {
				return Result{Passed: true, Seen: "echoed"}, nil
			}
		}
	}
	return Result{Seen: fmt.Sprintf("no echo of %d datagrams", tries)}, nil
}

// ProbeSCTP sends INITs with the tag from src, an address of the namespace, to
// dst until arrived yields: nobody answers them, so whoever watches dst says
// so.
func (ns *Namespace) ProbeSCTP(ctx context.Context, in SCTPInit, arrived <-chan struct{}) (Result, error) {
	conn, err := ns.rawSCTP(in.Src.Addr())
	if err != nil {
		return Result{}, fmt.Errorf("open SCTP socket in %s: %w", ns.name, err)
	}
	defer conn.Close()
	tries := 0
	end := time.Now().Add(patience)
	for interval := firstInterval; time.Now().Before(end); interval *= 2 {
		if err := sendInit(conn, in); err != nil {
			return Result{}, fmt.Errorf("send INIT %v to %v: %w", in.Src, in.Dst, err)
		}
		tries++
		select {
		case <-arrived:
			return Result{Passed: true, Seen: "INIT arrived"}, nil
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-time.After(time.Until(earlier(time.Now().Add(interval), end))):
		}
	}
	return Result{Seen: fmt.Sprintf("none of %d INITs arrived", tries)}, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func nonce() []byte {
	b := make([]byte, nonceLen)
	rand.Read(b) // never fails
	return b
}

func family(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
