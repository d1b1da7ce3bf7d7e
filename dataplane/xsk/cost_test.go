package xsk_test

import (
	"testing"

	"github.com/sluice-net/sluice/bench/pmc"
	"github.com/sluice-net/sluice/dataplane/xsk"
)

// lap sends one burst through all four rings, both sides.
func lap(s *xsk.Socket, k *kernel, descs []xsk.Desc) int {
	s.Refill()
	for range descs {
		k.receive(60)
	}
	n := s.Recv(descs)
	n = s.Send(descs[:n])
	for range n {
		k.transmit()
	}
	return s.Reclaim()
}

func TestNoAllocs(t *testing.T) {
	u := newUMEM(t, 256)
	s, k := newFake(t, u, 64, 1<<32-1000)
	descs, addrs := make([]xsk.Desc, 32), make([]uint64, 32)
	for name, f := range map[string]func(){
		"lap": func() {
			if n := lap(s, k, descs); n != 32 {
				t.Fatalf("%d frames made the lap", n)
			}
		},
		"alloc, fill, free": func() {
			n := u.Alloc(addrs)
			u.Free(addrs[s.Fill(addrs[:n]):n])
		},
		"complete": func() { u.Free(addrs[:s.Complete(addrs)]) },
		"bytes":    func() { u.Bytes(4096, 60)[0]++ },
		"free descs": func() {
			for i := range descs[:u.Alloc(addrs)] {
				descs[i].Addr = addrs[i]
			}
			u.FreeDescs(descs)
		},
		"state":           func() { s.Pending(); s.Unsent(); u.Available() },
		"closed syscalls": func() { s.Kick(); s.Wake(); s.Probe(); s.Wait(0) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkBurst measures one call with a burst of 64 against the fake kernel,
// whose own share is kept out of the time by moving indices only.
func BenchmarkBurst(b *testing.B) {
	const burst, size = 64, 2048
	perDesc := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/burst, "ns/desc")
	}
	setup := func(b *testing.B) (*xsk.Socket, *kernel, []xsk.Desc, []uint64) {
		u := newUMEM(b, 4096)
		s, k := newFake(b, u, size, 0)
		u.Alloc(make([]uint64, u.Frames())) // all of them held by the benchmark
		for i := range size {
			k.rx.slots[i] = xsk.Desc{Addr: uint64(i)*2048 + 256, Len: 60}
			k.comp.slots[i] = uint64(i) * 2048
		}
		descs, addrs := make([]xsk.Desc, burst), make([]uint64, burst)
		for i := range burst {
			descs[i].Addr, addrs[i] = uint64(i)*2048, uint64(i)*2048
		}
		return s, k, descs, addrs
	}
	b.Run("Recv", func(b *testing.B) {
		s, k, descs, _ := setup(b)
		defer pmc.Count(b)()
		for b.Loop() {
			k.rx.advance(burst)
			if s.Recv(descs) != burst {
				b.Fatal("short burst")
			}
		}
		perDesc(b)
	})
	b.Run("Send", func(b *testing.B) {
		s, k, descs, _ := setup(b)
		defer pmc.Count(b)()
		for b.Loop() {
			if s.Send(descs) != burst {
				b.Fatal("short burst")
			}
			k.tx.swallow(burst)
		}
		perDesc(b)
	})
	b.Run("Fill", func(b *testing.B) {
		s, k, _, addrs := setup(b)
		defer pmc.Count(b)()
		for b.Loop() {
			if s.Fill(addrs) != burst {
				b.Fatal("short burst")
			}
			k.fill.swallow(burst)
		}
		perDesc(b)
	})
	b.Run("Complete", func(b *testing.B) {
		s, k, _, addrs := setup(b)
		defer pmc.Count(b)()
		for b.Loop() {
			k.comp.advance(burst)
			if s.Complete(addrs) != burst {
				b.Fatal("short burst")
			}
		}
		perDesc(b)
	})
	b.Run("AllocFree", func(b *testing.B) {
		u, addrs := newUMEM(b, 4096), make([]uint64, burst)
		defer pmc.Count(b)()
		for b.Loop() {
			u.Free(addrs[:u.Alloc(addrs)])
		}
		perDesc(b)
	})
	b.Run("Lap", func(b *testing.B) {
		u := newUMEM(b, 4096)
		s, k := newFake(b, u, 256, 0)
		descs := make([]xsk.Desc, burst)
		defer pmc.Count(b)()
		for b.Loop() {
			if lap(s, k, descs) != burst {
				b.Fatal("short burst")
			}
		}
		perDesc(b)
	})
}

// BenchmarkVeth sends bursts over a veth pair and receives them, all in one
// goroutine and with the kernel's work in the same thread.
func BenchmarkVeth(b *testing.B) {
	const burst = 64
	isolate(b)
	x, y := veth(b, "sluicea", "sluiceb", 1500)
	tx, rx := open(b, newUMEM(b, 1024), small(x)), open(b, newUMEM(b, 1024), small(y))
	register(b, steer(b, y), 0, rx.FD())
	rx.Refill()
	descs, addrs := make([]xsk.Desc, burst), make([]uint64, burst)
	moved := 0
	defer pmc.Count(b)()
	for b.Loop() {
		n := tx.UMEM().Alloc(addrs)
		for i, a := range addrs[:n] {
			descs[i] = xsk.Desc{Addr: a, Len: 60}
		}
		if tx.Send(descs[:n]) != burst || tx.Kick() != xsk.OK {
			b.Fatal("short burst")
		}
		for got := 0; got < burst; {
			if st := rx.Wait(1000); st != xsk.OK {
				b.Fatalf("wait: %v", st)
			}
			k := rx.Recv(descs)
			rx.UMEM().FreeDescs(descs[:k])
			got, moved = got+k, moved+k
		}
		rx.Refill()
		tx.Reclaim()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(moved), "ns/packet")
}
