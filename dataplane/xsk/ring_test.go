package xsk_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// starts are index values around which rings go wrong.
var starts = []uint32{0, 1, 1<<31 - 3, 1<<32 - 1, 1<<32 - 7}

// TestRingsAgainstModel drives both sides with random steps and compares every
// outcome with a plain list of what is where.
func TestRingsAgainstModel(t *testing.T) {
	for _, size := range []uint32{1, 2, 8, 64} {
		for _, start := range starts {
			t.Run(fmt.Sprintf("size=%d,start=%#x", size, start), func(t *testing.T) {
				driveModel(t, size, start, 20000)
			})
		}
	}
}

func driveModel(t *testing.T, size, start uint32, steps int) {
	const frames = 100
	u := newUMEM(t, frames)
	s, k := newFake(t, u, size, start)
	rng := rand.New(rand.NewPCG(uint64(size), uint64(start)))

	var filled, received, sent, completed []uint64 // by the rings
	var held []xsk.Desc                            // by the user
	moved := 0
	room := func(used []uint64) int { return int(size) - len(used) }
	for step := range steps {
		burst := 1 + rng.IntN(2*int(size))
		switch op := rng.IntN(8); op {
		case 0: // refill
			free := slices.Clone(xsk.FreeFrames(u))
			want := min(len(free), room(filled))
			if n := s.Refill(); n != want {
				t.Fatalf("step %d: refilled %d, want %d", step, n, want)
			}
			filled = append(filled, free[len(free)-want:]...)
		case 1: // fill by hand
			addrs := make([]uint64, burst)
			addrs = addrs[:u.Alloc(addrs)]
			want := min(len(addrs), room(filled))
			if n := s.Fill(addrs); n != want {
				t.Fatalf("step %d: filled %d, want %d", step, n, want)
			}
			filled = append(filled, addrs[:want]...)
			u.Free(addrs[want:])
		case 2: // the kernel receives
			for range burst {
				addr, ok := k.receive(uint32(moved))
				if want := len(filled) > 0 && room(received) > 0; ok != want {
					t.Fatalf("step %d: kernel received %t, want %t", step, ok, want)
				}
				if ok {
					if addr != filled[0]+256 {
						t.Fatalf("step %d: kernel got frame %#x, want %#x", step, addr, filled[0])
					}
					filled, received = filled[1:], append(received, addr)
				}
			}
		case 3: // receive
			descs := make([]xsk.Desc, burst)
			n := s.Recv(descs)
			if want := min(burst, len(received)); n != want {
				t.Fatalf("step %d: received %d, want %d", step, n, want)
			}
			for i, d := range descs[:n] {
				if d.Addr != received[i] {
					t.Fatalf("step %d: received %#x, want %#x", step, d.Addr, received[i])
				}
			}
			received, held = received[n:], append(held, descs[:n]...)
			moved += n
		case 4: // send
			n := s.Send(held)
			if want := min(len(held), room(sent)); n != want {
				t.Fatalf("step %d: sent %d, want %d", step, n, want)
			}
			for _, d := range held[:n] {
				sent = append(sent, d.Addr)
			}
			held = held[n:]
			if s.Pending() != len(sent) || s.Unsent() != len(sent)+len(completed) {
				t.Fatalf("step %d: pending %d of %d, unsent %d of %d", step,
					s.Pending(), len(sent), s.Unsent(), len(sent)+len(completed))
			}
		case 5: // the kernel sends
			for range burst {
				d, ok := k.transmit()
				if want := len(sent) > 0 && room(completed) > 0; ok != want {
					t.Fatalf("step %d: kernel sent %t, want %t", step, ok, want)
				}
				if ok {
					if d.Addr != sent[0] {
						t.Fatalf("step %d: kernel sent %#x, want %#x", step, d.Addr, sent[0])
					}
					sent, completed = sent[1:], append(completed, d.Addr)
				}
			}
		case 6: // complete by hand
			addrs := make([]uint64, burst)
			n := s.Complete(addrs)
			if want := min(burst, len(completed)); n != want {
				t.Fatalf("step %d: completed %d, want %d", step, n, want)
			}
			for i, a := range addrs[:n] {
				if a != u.Base(completed[i]) {
					t.Fatalf("step %d: completed %#x, want %#x", step, a, u.Base(completed[i]))
				}
			}
			completed = completed[n:]
			u.Free(addrs[:n])
		case 7: // reclaim
			if n := s.Reclaim(); n != len(completed) {
				t.Fatalf("step %d: reclaimed %d, want %d", step, n, len(completed))
			}
			completed = nil
		}
		checkHolders(t, s, held, slices.Concat(filled, received), slices.Concat(sent, completed))
	}
	if moved < steps/40 {
		t.Errorf("%d frames moved in %d steps", moved, steps)
	}
}

// checkHolders checks that each frame has exactly one holder, the right one.
func checkHolders(t *testing.T, s *xsk.Socket, user []xsk.Desc, rx, tx []uint64) {
	t.Helper()
	u := s.UMEM()
	sorted := func(addrs []uint64) []uint64 {
		out := make([]uint64, len(addrs))
		for i, a := range addrs {
			out[i] = u.Base(a)
		}
		slices.Sort(out)
		return out
	}
	gotRx, gotTx := xsk.HeldBy(s)
	if !slices.Equal(gotRx, sorted(rx)) || !slices.Equal(gotTx, sorted(tx)) {
		t.Fatalf("socket holds %x and %x, want %x and %x", gotRx, gotTx, sorted(rx), sorted(tx))
	}
	all := slices.Concat(xsk.FreeFrames(u), gotRx, gotTx)
	for _, d := range user {
		all = append(all, u.Base(d.Addr))
	}
	slices.Sort(all)
	if len(all) != u.Frames() || len(slices.Compact(all)) != u.Frames() {
		t.Fatalf("%d frames have a holder, want each of %d once", len(all), u.Frames())
	}
}

// TestRingsConcurrently runs the kernel in another goroutine: each frame that
// it stamps must come back in order with its bytes, through all four rings.
func TestRingsConcurrently(t *testing.T) {
	const total = 200_000
	u := newUMEM(t, 64)
	s, k := newFake(t, u, 32, 1<<32-100)
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			for in, out := uint64(0), uint64(0); out < total; {
				if stop.Load() {
					return fmt.Errorf("stopped after %d of %d", out, total)
				}
				idle := true
				if in < total && k.fill.count() > 0 && k.rx.room() {
					addr, _ := k.fill.take()
					binary.LittleEndian.PutUint64(u.Bytes(addr+256, 8), in)
					k.rx.give(xsk.Desc{Addr: addr + 256, Len: 8})
					in, idle = in+1, false
				}
				if k.comp.room() {
					if d, ok := k.tx.take(); ok {
						if got := binary.LittleEndian.Uint64(u.Bytes(d.Addr, d.Len)); got != ^out {
							return fmt.Errorf("frame %d came back as %#x", out, got)
						}
						k.comp.give(d.Addr)
						out, idle = out+1, false
					}
				}
				if idle {
					runtime.Gosched()
				}
			}
			return nil
		}()
	}()

	descs := make([]xsk.Desc, 16)
	held := 0
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			s.Reclaim()
			checkHolders(t, s, nil, concatHeld(s), nil)
			return
		default:
		}
		s.Refill()
		n := s.Recv(descs[held:])
		for _, d := range descs[held : held+n] {
			b := u.Bytes(d.Addr, d.Len)
			binary.LittleEndian.PutUint64(b, ^binary.LittleEndian.Uint64(b))
		}
		held += n
		k := s.Send(descs[:held])
		held = copy(descs, descs[k:held])
		if s.Reclaim() == 0 && n == 0 {
			runtime.Gosched()
		}
	}
}

// concatHeld returns what the receiving side holds.
func concatHeld(s *xsk.Socket) []uint64 {
	rx, _ := xsk.HeldBy(s)
	return rx
}

// TestLyingIndices has the kernel's side claim what can't be: nothing may be
// taken or written until the index makes sense again.
func TestLyingIndices(t *testing.T) {
	for _, start := range starts {
		u := newUMEM(t, 64)
		s, k := newFake(t, u, 8, start)
		descs := make([]xsk.Desc, 64)
		addrs := make([]uint64, 64)
		u.Alloc(addrs)
		for _, lie := range []uint32{9, 1 << 31, 1<<32 - 1} {
			atomic.StoreUint32(k.rx.producer, start+lie)
			atomic.StoreUint32(k.comp.producer, start+lie)
			atomic.StoreUint32(k.fill.consumer, start+lie)
			atomic.StoreUint32(k.tx.consumer, start+lie)
			if n := s.Recv(descs); n != 0 {
				t.Errorf("start %#x, lie %#x: received %d", start, lie, n)
			}
			if n := s.Complete(make([]uint64, 64)); n != 0 {
				t.Errorf("start %#x, lie %#x: completed %d", start, lie, n)
			}
			if lie == 1<<32-1 {
				continue // one behind: the honest index of a ring that isn't empty
			}
			if n := s.Fill(addrs); n != 0 {
				t.Errorf("start %#x, lie %#x: filled %d", start, lie, n)
			}
			if n := s.Send(descs); n != 0 {
				t.Errorf("start %#x, lie %#x: sent %d", start, lie, n)
			}
		}
		atomic.StoreUint32(k.rx.producer, start+3)
		atomic.StoreUint32(k.comp.producer, start)
		atomic.StoreUint32(k.fill.consumer, start)
		atomic.StoreUint32(k.tx.consumer, start)
		if n := s.Recv(descs); n != 3 {
			t.Errorf("start %#x: received %d after the lie, want 3", start, n)
		}
		if n := s.Fill(addrs[:5]); n != 5 {
			t.Errorf("start %#x: filled %d after the lie, want 5", start, n)
		}
	}
}

// FuzzRing sets the kernel's indices to anything between the user's calls.
// None may panic, move more than the ring can hold, or write an index that is
// the kernel's.
func FuzzRing(f *testing.F) {
	f.Add(uint32(0), []byte{})
	f.Add(uint32(1<<32-2), []byte{0, 3, 0, 0, 0, 1, 9, 0, 0, 0, 2, 255, 255, 255, 255, 3, 1, 0, 0, 128})
	f.Add(uint32(7), []byte{4, 8, 0, 0, 0, 5, 8, 0, 0, 0, 6, 8, 0, 0, 0, 7, 8, 0, 0, 0})
	f.Fuzz(func(t *testing.T, start uint32, ops []byte) {
		const size = 8
		u := newUMEM(t, 32)
		s, k := newFake(t, u, size, start)
		theirs := []*uint32{k.rx.producer, k.comp.producer, k.fill.consumer, k.tx.consumer}
		ours := []*uint32{k.rx.consumer, k.comp.consumer, k.fill.producer, k.tx.producer}
		for i := range k.rx.slots {
			k.rx.slots[i] = xsk.Desc{Addr: ^uint64(i), Len: ^uint32(0)}
			k.comp.slots[i] = ^uint64(i)
		}
		defer func() { *k.comp.producer = *k.comp.consumer }() // honest for the close
		descs := make([]xsk.Desc, 24)
		addrs := make([]uint64, 24)
		for i := range addrs {
			// No frames at all, so that none has two holders.
			addrs[i], descs[i].Addr = ^uint64(i), ^uint64(i)
		}
		for ; len(ops) >= 5; ops = ops[5:] {
			arg := binary.LittleEndian.Uint32(ops[1:])
			which := ops[0] % 4
			if ops[0]%8 < 4 {
				*theirs[which] = start + arg%(4*size)
				if ops[0]&8 != 0 {
					*theirs[which] = arg
				}
				continue
			}
			burst := int(arg % 24)
			window := min(*theirs[which]-*ours[which], uint32(1<<31))
			before, kept := *ours[which], *theirs[which]
			var n int
			switch which {
			case 0:
				n = s.Recv(descs[:burst])
				for _, d := range descs[:n] {
					if b := u.Bytes(d.Addr, d.Len); b != nil && d.Len > 0 {
						t.Fatalf("%d bytes at %#x of a UMEM of %d", len(b), d.Addr, u.Frames()*u.FrameSize())
					}
				}
			case 1:
				n = s.Complete(make([]uint64, burst))
			case 2:
				n = s.Fill(addrs[:burst])
			case 3:
				n = s.Send(descs[:burst])
			}
			if n < 0 || n > burst || n > size {
				t.Fatalf("moved %d with a burst of %d in a ring of %d", n, burst, size)
			}
			if which < 2 && window > size && n > 0 && before == start {
				t.Fatalf("took %d of %d claimed slots in a ring of %d", n, window, size)
			}
			if *ours[which] != before+uint32(n) || *theirs[which] != kept {
				t.Fatalf("indices went from %d and %d to %d and %d by %d slots", before, kept, *ours[which], *theirs[which], n)
			}
			if p := s.Pending(); p < 0 || p > size {
				t.Fatalf("%d pending in a ring of %d", p, size)
			}
		}
	})
}
