package xsk_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/asavie/xdp"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// TestInterop exchanges frames with an independent implementation of AF_XDP in
// user space, github.com/asavie/xdp, at the other end of a veth pair: each
// side receives what the other sends, byte by byte, then echoes it.
func TestInterop(t *testing.T) {
	isolate(t)
	a, b := veth(t, "sluicea", "sluiceb", 1500)
	ours := open(t, newUMEM(t, 512), small(a))
	register(t, steer(t, a), 0, ours.FD())
	ours.Refill()

	program, err := xdp.NewProgram(1)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := program.Attach(b); err != nil {
		t.Fatal(err)
	}
	defer program.Detach(b)
	theirs, err := xdp.NewSocket(b, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if err := program.Register(0, theirs.FD()); err != nil {
		t.Fatal(err)
	}

	const burst = 32
	for round := range 30 {
		for _, size := range []int{60, 577, 1514} {
			first := round * burst
			theirs.Fill(theirs.GetDescs(theirs.NumFreeFillSlots()))
			send(t, ours, first, burst, size)
			theyReceive(t, theirs, first, burst, size)
			theySend(t, theirs, first, burst, size)
			receive(t, ours, first, burst, size)
		}
	}

	// Now they answer what we send, from the frames that they received.
	theirs.Fill(theirs.GetDescs(theirs.NumFreeFillSlots()))
	send(t, ours, 0, burst, 100)
	var echo []xdp.Desc
	for deadline := time.Now().Add(patience); len(echo) < burst; {
		if time.Now().After(deadline) {
			t.Fatalf("they received %d of %d", len(echo), burst)
		}
		n, _, err := theirs.Poll(100)
		if err != nil {
			t.Fatal(err)
		}
		echo = append(echo, theirs.Receive(n)...)
	}
	for i, d := range echo {
		binary.BigEndian.PutUint32(theirs.GetFrame(d)[14:], uint32(1000+i))
	}
	if n := theirs.Transmit(echo); n != burst {
		t.Fatalf("they sent %d", n)
	}
	descs := make([]xsk.Desc, burst)
	for got := 0; got < burst; {
		if st := ours.Wait(int(patience.Milliseconds())); st != xsk.OK {
			t.Fatalf("wait after %d echoes: %v", got, st)
		}
		n := ours.Recv(descs)
		for _, d := range descs[:n] {
			want := frame(uint32(got), 100)
			binary.BigEndian.PutUint32(want[14:], uint32(1000+got))
			if err := same(ours.UMEM().Bytes(d.Addr, d.Len), want); err != nil {
				t.Fatalf("echo %d: %v", got, err)
			}
			got++
		}
		ours.UMEM().FreeDescs(descs[:n])
	}
}

// theyReceive has the other implementation take count test frames.
func theyReceive(t *testing.T, s *xdp.Socket, first, count, size int) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for got := 0; got < count; {
		if time.Now().After(deadline) {
			t.Fatalf("they received %d of %d", got, count)
		}
		n, _, err := s.Poll(100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range s.Receive(n) {
			if err := same(s.GetFrame(d), frame(uint32(first+got), size)); err != nil {
				t.Fatalf("their frame %d: %v", first+got, err)
			}
			got++
		}
	}
}

// theySend has the other implementation send count test frames.
func theySend(t *testing.T, s *xdp.Socket, first, count, size int) {
	t.Helper()
	descs := s.GetDescs(count)
	if len(descs) < count {
		t.Fatalf("they have %d frames free", len(descs))
	}
	for i := range descs {
		descs[i].Len = uint32(size)
		fillFrame(s.GetFrame(descs[i]), uint32(first+i))
	}
	if n := s.Transmit(descs); n != count {
		t.Fatalf("they sent %d of %d", n, count)
	}
	if !eventually(func() bool { s.Complete(s.NumCompleted()); return s.NumTransmitted() == 0 }) {
		t.Fatalf("%d of their frames are on their way", s.NumTransmitted())
	}
}
