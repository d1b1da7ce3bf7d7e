package xsk_test

import (
	"testing"
	"time"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// TestJumbo sends packets of up to 9014 bytes as chains of 2048-byte frames,
// in both roles, and compares every byte.
func TestJumbo(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 9000)
	ca, cb := small(a), small(b)
	ca.MultiBuffer, cb.MultiBuffer = true, true
	sa, sb := open(t, newUMEM(t, 512), ca), open(t, newUMEM(t, 512), cb)
	register(t, steer(t, b), 0, sb.FD())
	sb.Refill()

	n := uint32(0)
	for _, size := range []int{64, 1514, 1792, 1793, 2048, 2049, 3584, 3585, 4096, 4097, 9000, 9014} {
		for range 8 {
			sendChain(t, sa, frame(n, size))
			got, pieces := receiveChain(t, sb)
			if err := same(got, frame(n, size)); err != nil {
				t.Fatalf("size %d in %d pieces: %v", size, pieces, err)
			}
			if want := (size + 1791) / 1792; pieces != want {
				t.Errorf("size %d came in %d pieces, want %d", size, pieces, want)
			}
			n++
		}
	}
	if !eventually(func() bool { sa.Reclaim(); return sa.Unsent() == 0 }) || sa.UMEM().Available() != 512 {
		t.Errorf("%d of 512 frames free at the sender", sa.UMEM().Available())
	}
	if got := sb.UMEM().Available() + sb.UMEM().Held(); got != 512 {
		t.Errorf("%d of 512 frames accounted for at the receiver", got)
	}
}

// TestJumboWithoutMultiBuffer has packets that are too large dropped and
// counted, never cut.
func TestJumboWithoutMultiBuffer(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 9000)
	ca := small(a)
	ca.MultiBuffer = true
	sa, sb := open(t, newUMEM(t, 512), ca), open(t, newUMEM(t, 512), small(b))
	register(t, steer(t, b), 0, sb.FD())
	sb.Refill()
	for n := range uint32(10) {
		sendChain(t, sa, frame(n, 5000))
	}
	send(t, sa, 10, 1, 1500)
	receive(t, sb, 10, 1, 1500)
	if st, err := sb.Stats(); err != nil || st.RxDropped != 10 {
		t.Errorf("stats %+v, %v, want 10 dropped", st, err)
	}
}

// sendChain sends one packet over as many frames as it needs.
func sendChain(t *testing.T, s *xsk.Socket, packet []byte) {
	t.Helper()
	u := s.UMEM()
	var chain []xsk.Desc
	for len(packet) > 0 {
		var addr [1]uint64
		if u.Alloc(addr[:]) == 0 {
			t.Fatal("no frame is free")
		}
		n := copy(u.Bytes(addr[0], uint32(u.FrameSize())), packet)
		packet = packet[n:]
		d := xsk.Desc{Addr: addr[0], Len: uint32(n)}
		if len(packet) > 0 {
			d.Options = xsk.PktContd
		}
		chain = append(chain, d)
	}
	if n := s.Send(chain); n != len(chain) {
		t.Fatalf("sent %d of %d pieces", n, len(chain))
	}
	if st := s.Kick(); st != xsk.OK {
		t.Fatalf("kick: %v: %v", st, s.Err())
	}
	s.Reclaim()
}

// receiveChain takes one packet and the number of its pieces.
func receiveChain(t *testing.T, s *xsk.Socket) (packet []byte, pieces int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		var d [1]xsk.Desc
		if s.Recv(d[:]) == 0 {
			if st := s.Wait(100); st != xsk.OK && st != xsk.Idle {
				t.Fatalf("wait: %v", st)
			}
			continue
		}
		packet, pieces = append(packet, s.UMEM().Bytes(d[0].Addr, d[0].Len)...), pieces+1
		s.UMEM().FreeDescs(d[:])
		if d[0].Options&xsk.PktContd == 0 {
			s.Refill()
			return packet, pieces
		}
	}
	st, err := s.Stats()
	t.Fatalf("no packet: %d pieces so far, %+v, %v", pieces, st, err)
	return nil, 0
}
