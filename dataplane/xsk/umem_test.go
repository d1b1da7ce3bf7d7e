package xsk_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

func TestUMEMConfigValidate(t *testing.T) {
	for _, c := range []struct {
		cfg  xsk.UMEMConfig
		want []string // in the error; none, no error
	}{
		{xsk.DefaultUMEM(), nil},
		{xsk.UMEMConfig{Frames: 1, FrameSize: 4096, Headroom: 4096 - 257}, nil},
		{xsk.UMEMConfig{Frames: 0, FrameSize: 1500, Headroom: -1}, []string{"frames 0", "frame size 1500", "headroom -1"}},
		{xsk.UMEMConfig{Frames: 1<<20 + 1, FrameSize: 8192}, []string{"frames 1048577", "frame size 8192"}},
		{xsk.UMEMConfig{Frames: 8, FrameSize: 2048, Headroom: 2048 - 256}, []string{"headroom 1792"}},
	} {
		checkFaults(t, fmt.Sprintf("%+v", c.cfg), c.cfg.Validate(), c.want)
		if len(c.want) > 0 {
			if u, err := xsk.NewUMEM(c.cfg); err == nil {
				t.Errorf("%+v: NewUMEM accepts it", c.cfg)
				u.Close()
			}
		}
	}
}

// A descriptor is the kernel's word: Prefetch must not fall over a wrong one.
func TestPrefetch(t *testing.T) {
	u := newUMEM(t, 4)
	before := slices.Clone(u.Bytes(0, 4*2048))
	descs := []xsk.Desc{{Addr: 0, Len: 60}, {Addr: 3*2048 + 256, Len: 1500}, {Addr: 1 << 20}, {Addr: ^uint64(0)}}
	for n := range len(descs) + 1 {
		u.Prefetch(descs[:n])
	}
	if !slices.Equal(u.Bytes(0, 4*2048), before) || descs[3] != (xsk.Desc{Addr: ^uint64(0)}) {
		t.Error("Prefetch has written to what it was given")
	}
}

func TestConfigValidate(t *testing.T) {
	with := func(change func(*xsk.Config)) xsk.Config {
		cfg := xsk.Default(3, 1)
		change(&cfg)
		return cfg
	}
	for _, c := range []struct {
		cfg  xsk.Config
		want []string
	}{
		{xsk.Default(3, 1), nil},
		{with(func(c *xsk.Config) { c.RxSize = 0 }), nil},
		{with(func(c *xsk.Config) { c.TxSize = 0 }), nil},
		{with(func(c *xsk.Config) { c.RxSize, c.TxSize = 0, 0 }), []string{"neither"}},
		{with(func(c *xsk.Config) { c.FillSize, c.CompletionSize = 0, 100 }), []string{"fill ring of 0", "completion ring of 100"}},
		{with(func(c *xsk.Config) { c.Ifindex, c.Mode, c.TxBudget = 0, 7, -1 }), []string{"ifindex 0", "mode 7", "tx budget -1"}},
		{with(func(c *xsk.Config) { c.BusyPollUs = -5 }), []string{"busy poll of -5"}},
		{with(func(c *xsk.Config) { c.RxSize = 1 << 21 }), []string{"rx ring of 2097152"}},
	} {
		checkFaults(t, fmt.Sprintf("%+v", c.cfg), c.cfg.Validate(), c.want)
	}
	u := newUMEM(t, 8)
	if _, err := u.Open(xsk.Config{}); err == nil {
		t.Error("Open accepts an empty configuration")
	}
}

func checkFaults(t *testing.T, what string, err error, want []string) {
	t.Helper()
	if (err == nil) != (len(want) == 0) {
		t.Errorf("%s: error %v, want faults %q", what, err, want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: error %q doesn't name %q", what, err, w)
		}
	}
}

func TestBytes(t *testing.T) {
	u := newUMEM(t, 4)
	const size = 4 * 2048
	for _, c := range []struct {
		addr uint64
		n    uint32
		in   bool
	}{
		{0, 0, true}, {0, 2048, true}, {0, size, true}, {size, 0, true}, {size - 1, 1, true},
		{0, size + 1, false}, {size, 1, false}, {size + 1, 0, false},
		{^uint64(0), 1, false}, {^uint64(0), 2, false}, {^uint64(0) - 1, ^uint32(0), false},
		{1 << 63, 1, false}, {0, ^uint32(0), false},
	} {
		b := u.Bytes(c.addr, c.n)
		if (b != nil) != c.in {
			t.Errorf("Bytes(%#x, %d) is nil: %t, want in the UMEM: %t", c.addr, c.n, b == nil, c.in)
		}
		if b != nil && (len(b) != int(c.n) || cap(b) != int(c.n)) {
			t.Errorf("Bytes(%#x, %d) has length %d and capacity %d", c.addr, c.n, len(b), cap(b))
		}
	}
	u.Bytes(2048, 1)[0] = 42
	if got := u.Bytes(2047, 2)[1]; got != 42 {
		t.Errorf("two views of one byte: %d, want 42", got)
	}
	if got := u.Base(3*2048 + 256); got != 3*2048 {
		t.Errorf("Base = %d, want %d", got, 3*2048)
	}
}

func TestHugePagesFallBack(t *testing.T) {
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Frames: 3, FrameSize: 4096, HugePages: true})
	if err != nil {
		t.Fatal(err)
	}
	if u.Bytes(3*4096, 1) != nil || u.Bytes(0, 3*4096) == nil {
		t.Errorf("UMEM on huge pages %t isn't of its frames' size", u.HugePages())
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if err := u.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if u.Bytes(0, 1) != nil || u.Alloc(make([]uint64, 1)) != 0 {
		t.Error("a closed UMEM still gives bytes or frames")
	}
}

// TestAllocator checks against a set that no frame is given out twice and none
// gets lost, and that the last one back is the first one out.
func TestAllocator(t *testing.T) {
	const frames = 37
	u := newUMEM(t, frames)
	rng := rand.New(rand.NewPCG(1, 2))
	out := map[uint64]bool{}
	var held []uint64
	for step := range 50000 {
		buf := make([]uint64, rng.IntN(12))
		if rng.IntN(2) == 0 {
			n := u.Alloc(buf)
			if want := min(len(buf), frames-len(out)); n != want {
				t.Fatalf("step %d: %d frames, want %d", step, n, want)
			}
			for _, a := range buf[:n] {
				if out[a] || a%2048 != 0 || a >= frames*2048 {
					t.Fatalf("step %d: frame %#x given out, twice: %t", step, a, out[a])
				}
				out[a] = true
			}
			held = append(held, buf[:n]...)
			continue
		}
		rng.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
		n := min(len(buf), len(held))
		descs := make([]xsk.Desc, n)
		for i := range n {
			delete(out, held[i])
			buf[i] = held[i] + uint64(rng.IntN(2048))
			descs[i].Addr = buf[i]
		}
		if rng.IntN(2) == 0 {
			u.Free(buf[:n])
		} else {
			u.FreeDescs(descs)
		}
		if n > 0 {
			var top [1]uint64
			u.Alloc(top[:])
			if top[0] != held[n-1] {
				t.Fatalf("step %d: next frame %#x, want the last one freed, %#x", step, top[0], held[n-1])
			}
			u.Free(top[:])
		}
		held = slices.Delete(held, 0, n)
		if got := u.Available(); got != frames-len(out) {
			t.Fatalf("step %d: %d free, want %d", step, got, frames-len(out))
		}
	}
}

func TestFreeTwicePanics(t *testing.T) {
	u := newUMEM(t, 4)
	var a [1]uint64
	u.Alloc(a[:])
	u.Free(a[:])
	defer func() {
		if recover() == nil {
			t.Error("a fifth frame of four was freed")
		}
	}()
	u.Free(a[:])
}

// TestCloseGivesBack closes one of two sockets on a UMEM in the middle of
// everything: its frames come back, those of the other and of the user stay.
func TestCloseGivesBack(t *testing.T) {
	for _, mode := range []xsk.Mode{xsk.Copy, xsk.ZeroCopy} {
		t.Run(mode.String(), func(t *testing.T) {
			u := newUMEM(t, 64)
			s, k := newFakeMode(t, u, mode, 16, 1<<32-8)
			other, _ := newFake(t, u, 16, 0)
			s.Refill()
			other.Refill()
			for range 12 {
				k.receive(60)
			}
			descs := make([]xsk.Desc, 10)
			if n := s.Recv(descs); n != 10 {
				t.Fatalf("received %d", n)
			}
			s.Send(descs[:6])    // the user keeps 4
			s.Refill()           // the fill ring is full again, 2 are in rx
			d, _ := k.transmit() // 1 completed
			k.tx.take()          // 1 on its way, 4 pending
			before := u.Available()
			rx, tx := xsk.HeldBy(s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			back := len(rx) + len(tx) - 1
			if mode == xsk.ZeroCopy {
				back = 1 // only what has surely been sent
			}
			if got := u.Available() - before; got != back {
				t.Errorf("%d frames came back of %d and %d, want %d", got, len(rx), len(tx), back)
			}
			if !slices.Contains(xsk.FreeFrames(u), u.Base(d.Addr)) {
				t.Error("the completed frame isn't free")
			}
			if got, want := u.Held(), 16+len(rx)+len(tx)-back; got != want {
				t.Errorf("%d frames held, want %d", got, want)
			}
			if got, want := u.Kept(), len(rx)+len(tx)-back; got != want {
				t.Errorf("%d frames kept, want %d", got, want)
			}
			if s.Recv(descs) != 0 || s.Send(descs) != 0 || s.Refill() != 0 || s.Reclaim() != 0 ||
				s.Pending() != 0 || s.Kick() != xsk.OK || s.Wait(0) != xsk.Dead || s.Probe() != xsk.Dead {
				t.Error("a closed socket still does something")
			}
			if u.Reset() {
				t.Error("Reset with a socket open")
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			if !u.Reset() || u.Available() != 64 || u.Held() != 0 || u.Kept() != 0 {
				t.Errorf("after Reset %d of 64 free, %d held", u.Available(), u.Held())
			}
		})
	}
}

func TestUMEMCloseNeedsClosedSockets(t *testing.T) {
	u := newUMEM(t, 8)
	s, _ := newFake(t, u, 8, 0)
	if err := u.Close(); err == nil {
		t.Error("UMEM closed under a socket")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
}

func TestStatusOf(t *testing.T) {
	for errno, want := range map[unix.Errno]xsk.Status{
		0:              xsk.OK,
		unix.EAGAIN:    xsk.Again,
		unix.EBUSY:     xsk.Again,
		unix.ENOBUFS:   xsk.Again,
		unix.ENETDOWN:  xsk.Down,
		unix.ENXIO:     xsk.Dead,
		unix.EBADF:     xsk.Dead,
		unix.ENOTSOCK:  xsk.Dead,
		unix.EFAULT:    xsk.Dead,
		unix.EINVAL:    xsk.Dead,
		unix.ENODEV:    xsk.Dead,
		unix.EINTR:     xsk.Again,
		unix.ENOMEM:    xsk.Again,
		unix.EOVERFLOW: xsk.Dead,
	} {
		if got := xsk.StatusOf(errno); got != want {
			t.Errorf("%v: %v, want %v", errno, got, want)
		}
	}
}
