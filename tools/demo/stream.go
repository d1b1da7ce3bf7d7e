package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/api"
)

const (
	// beat is the pace of the live connection's messages.
	beat = 10 * time.Millisecond
	// warmUp is how long it lives before anything is changed.
	warmUp = 500 * time.Millisecond
	// silence is how long it must say nothing to count as cut: several times
	// what TCP waits before it sends again (200 ms and up).
	silence = 1500 * time.Millisecond
)

// stream is a live connection that says something every beat and notes when an
// answer came.
type stream struct {
	conn net.Conn
	done sync.WaitGroup

	mu    sync.Mutex
	count int
	last  time.Time
}

// openStream connects the old client to the frontend.
func (d *Demo) openStream(ctx context.Context) (*stream, error) {
	client, _ := d.lab.Pod(OldClient)
	_, addrs := d.lab.Pod(Frontend)
	if client == nil || len(addrs) == 0 {
		return nil, fmt.Errorf("open live connection: %s or %s is missing", OldClient, Frontend)
	}
	conn, err := client.DialTCP(ctx, netip.AddrPortFrom(addrs[0], frontendPort))
	if err != nil {
		return nil, fmt.Errorf("open live connection: %w", err)
	}
	s := &stream{conn: conn}
	s.done.Go(s.talk)
	s.done.Go(s.listen)
	return s, nil
}

func (s *stream) talk() {
	for {
		if _, err := s.conn.Write([]byte{'.'}); err != nil {
			return
		}
		time.Sleep(beat)
	}
}

func (s *stream) listen() {
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(s.conn, b); err != nil {
			return
		}
		s.mu.Lock()
		s.count++
		s.last = time.Now()
		s.mu.Unlock()
	}
}

func (s *stream) echoes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *stream) lastEcho() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// is reports whether a flow is the stream's, in either direction.
func (s *stream) is(f *api.Flow) bool {
	mine := [2]string{s.conn.LocalAddr().String(), s.conn.RemoteAddr().String()}
	src := netip.AddrPortFrom(f.Src.Addr, f.Src.Port).String()
	dst := netip.AddrPortFrom(f.Dst.Addr, f.Dst.Port).String()
	return f.Proto == "TCP" && (mine == [2]string{src, dst} || mine == [2]string{dst, src})
}

// close resets the connection: nothing of it is sent again and again.
func (s *stream) close() {
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	s.conn.Close()
	s.done.Wait()
}
