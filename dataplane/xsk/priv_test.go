package xsk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/xsk"
)

// needPriv skips the test for an ordinary user, and fails it where
// REQUIRE_PRIV=1 says that privileges are expected.
func needPriv(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		tb.Fatal("REQUIRE_PRIV=1, but not root")
	}
	tb.Skip("needs root")
}

// isolate moves the test into a network namespace of its own, which goes with
// all its links when the test ends, however it ends. It has no name, so
// nothing is left behind; it returns a handle for others to move links to.
func isolate(tb testing.TB) netns.NsHandle {
	tb.Helper()
	needPriv(tb)
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		tb.Fatalf("get namespace: %v", err)
	}
	ns, err := netns.New()
	if err != nil {
		tb.Fatalf("create namespace: %v", err)
	}
	tb.Cleanup(func() {
		if err := errors.Join(netns.Set(old), old.Close(), ns.Close()); err != nil {
			tb.Errorf("leave namespace: %v", err)
			return // the thread stays locked and ends with its goroutine
		}
		runtime.UnlockOSThread()
	})
	// No neighbour discovery among the tests' frames.
	for _, f := range []string{"all", "default"} {
		name := "/proc/sys/net/ipv6/conf/" + f + "/disable_ipv6"
		if err := os.WriteFile(name, []byte("1"), 0o644); err != nil && !os.IsNotExist(err) {
			tb.Fatalf("disable ipv6: %v", err)
		}
	}
	return ns
}

// veth creates a pair in the current namespace, both ends up, and returns
// their indices.
func veth(tb testing.TB, a, b string, mtu int) (int, int) {
	tb.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = a, mtu
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerMTU: uint32(mtu)}
	if err := netlink.LinkAdd(pair); err != nil {
		tb.Fatalf("create veth pair: %v", err)
	}
	return up(tb, a), up(tb, b)
}

// up sets a link up and returns its index.
func up(tb testing.TB, name string) int {
	tb.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		tb.Fatalf("find %s: %v", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		tb.Fatalf("set %s up: %v", name, err)
	}
	return l.Attrs().Index
}

// steer attaches a program that redirects each frame to the socket of its
// queue; frames of queues without one go to the stack.
func steer(tb testing.TB, ifindex int) *ebpf.Map {
	tb.Helper()
	socks, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "sluice_xsk", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 4,
	})
	if err != nil {
		tb.Fatalf("create xskmap: %v", err)
	}
	tb.Cleanup(func() { socks.Close() })
	const rxQueueIndex = 16 // offsetof(struct xdp_md, rx_queue_index)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "sluice_steer", Type: ebpf.XDP, License: "GPL",
		Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, rxQueueIndex, asm.Word),
			asm.LoadMapPtr(asm.R1, socks.FD()),
			asm.Mov.Imm(asm.R3, 2), // XDP_PASS
			asm.FnRedirectMap.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		tb.Fatalf("load program: %v", err)
	}
	tb.Cleanup(func() { prog.Close() })
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		tb.Fatalf("attach program: %v", err)
	}
	tb.Cleanup(func() { l.Close() })
	return socks
}

// register puts a socket into the map of its device.
func register(tb testing.TB, socks *ebpf.Map, queue uint32, fd int) {
	tb.Helper()
	if err := socks.Put(queue, uint32(fd)); err != nil {
		tb.Fatalf("register socket: %v", err)
	}
}

func newUMEM(tb testing.TB, frames int) *xsk.UMEM {
	tb.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Frames: frames, FrameSize: 2048})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := u.Close(); err != nil {
			tb.Error(err)
		}
	})
	return u
}

// patience is how long a test waits for what must come, on a machine that is busy with
// other things.
const patience = 30 * time.Second

// small is a socket configuration with rings of 256.
func small(ifindex int) xsk.Config {
	cfg := xsk.Default(ifindex, 0)
	cfg.RxSize, cfg.TxSize, cfg.FillSize, cfg.CompletionSize = 256, 256, 256, 256
	return cfg
}

func open(tb testing.TB, u *xsk.UMEM, cfg xsk.Config) *xsk.Socket {
	tb.Helper()
	s, err := u.Open(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// etherType of the frames, from those for local experiments (IEEE 802).
const etherType = 0x88b5

const headerLen = 14 + 4

// fillFrame writes the n-th test frame over b.
func fillFrame(b []byte, n uint32) {
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], etherType)
	binary.BigEndian.PutUint32(b[14:], n)
	for i := headerLen; i < len(b); i++ {
		b[i] = byte(uint32(i)*7 + n*13)
	}
}

// frame returns the n-th test frame.
func frame(n uint32, size int) []byte {
	b := make([]byte, size)
	fillFrame(b, n)
	return b
}

// send queues the test frames from first on, kicks until they are gone, and
// takes the completions. It returns the number of kicks.
func send(tb testing.TB, s *xsk.Socket, first, count, size int) int {
	tb.Helper()
	u := s.UMEM()
	kicks, sent := 0, 0
	deadline := time.Now().Add(patience)
	for sent < count || s.Unsent() > 0 {
		if time.Now().After(deadline) {
			tb.Fatalf("sent %d of %d, %d pending, %d unsent, last error %v", sent, count, s.Pending(), s.Unsent(), s.Err())
		}
		var addrs [64]uint64
		var descs [64]xsk.Desc
		n := u.Alloc(addrs[:min(64, count-sent)])
		for i, a := range addrs[:n] {
			fillFrame(u.Bytes(a, uint32(size)), uint32(first+sent+i))
			descs[i] = xsk.Desc{Addr: a, Len: uint32(size)}
		}
		k := s.Send(descs[:n])
		u.Free(addrs[k:n])
		sent += k
		if s.Pending() > 0 && (sent == count || k == 0) {
			kicks++
			if st := s.Kick(); st != xsk.OK && st != xsk.Again {
				tb.Fatalf("kick: %v: %v", st, s.Err())
			}
		}
		s.Reclaim()
	}
	return kicks
}

// receive takes count test frames from first on, in order, and frees them.
func receive(tb testing.TB, s *xsk.Socket, first, count, size int) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for got := 0; got < count; {
		if time.Now().After(deadline) {
			st, err := s.Stats()
			tb.Fatalf("received %d of %d frames; %+v, %v", got, count, st, err)
		}
		if st := s.Wait(100); st != xsk.OK && st != xsk.Idle {
			tb.Fatalf("wait: %v: %v", st, s.Err())
		}
		var descs [64]xsk.Desc
		n := s.Recv(descs[:])
		for _, d := range descs[:n] {
			b := s.UMEM().Bytes(d.Addr, d.Len)
			if err := same(b, frame(uint32(first+got), size)); err != nil {
				tb.Fatalf("frame %d: %v", first+got, err)
			}
			got++
		}
		s.UMEM().FreeDescs(descs[:n])
		s.Refill()
	}
}

func same(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	return fmt.Errorf("got %d bytes %x…, want %d bytes %x…", len(got), got[:min(24, len(got))], len(want), want[:min(24, len(want))])
}
