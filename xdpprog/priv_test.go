package xdpprog_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/xdpprog"
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

// bpffs returns the path of a bpffs that is mounted nowhere: it goes with the
// descriptor, however the test ends.
func bpffs(tb testing.TB) string {
	tb.Helper()
	needPriv(tb)
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		tb.Fatalf("open bpffs: %v", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		tb.Fatalf("create bpffs: %v", err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		tb.Fatalf("mount bpffs: %v", err)
	}
	tb.Cleanup(func() { unix.Close(mnt) })
	return fmt.Sprintf("/proc/self/fd/%d", mnt)
}

// smallConfig has maps that are quick to make.
func smallConfig(path string) xdpprog.Config {
	return xdpprog.Config{
		PinPath: path, Workers: 1, Offload: true, Shortcut: true,
		Flows: 256, Denied: 256, Fragments: 64, Admits: 64, Endpoints: 15,
		HeartbeatTimeout: time.Minute, DenyTTL: time.Minute,
	}
}

func load(tb testing.TB, cfg xdpprog.Config) (*xdpprog.Objects, []string) {
	tb.Helper()
	o, replaced, err := xdpprog.Load(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return o, replaced
}

// rig runs the programs on single packets, as if they had come by the loopback
// link of this network namespace, which every test run has.
type rig struct {
	testing.TB
	*xdpprog.Objects
}

const (
	loopback = 1 // ifindex
	podSlot  = 3
	peerSlot = 4
	peerLink = 77
	podGen   = 5
	peerGen  = 6
)

// newRig loads the programs, with the pod of podSlot behind the loopback link,
// one at peerSlot behind another, and living workers.
func newRig(t testing.TB, change func(*xdpprog.Config)) *rig {
	t.Helper()
	cfg := smallConfig(bpffs(t))
	if change != nil {
		change(&cfg)
	}
	o, _ := load(t, cfg)
	r := &rig{t, o}
	t.Cleanup(func() { r.must(o.Close()) })
	r.must(o.PutEndpoint(podSlot, xdpprog.Endpoint{Ifindex: loopback, Gen: podGen, MAC: podMAC, HostMAC: hostMAC}))
	r.must(o.PutEndpoint(peerSlot, xdpprog.Endpoint{Ifindex: peerLink, Gen: peerGen, MAC: peerMAC, HostMAC: peerHostMAC}))
	r.must(o.BindLink(loopback, podSlot))
	r.must(o.BindLink(peerLink, peerSlot))
	own := []xdpprog.Addr{addr(pod4), addr(pod6), addr(podLL)}
	r.must(o.SetOwnAddrs(podSlot, own))
	for w := range cfg.Workers {
		r.must(o.SetPort(w, 10+w))
		r.revive(w)
	}
	return r
}

// revive gives a worker a socket and a fresh heartbeat.
func (r *rig) revive(worker int) {
	r.Helper()
	r.must(r.SetSocket(worker, r.socket()))
	r.Beat(worker, nowNs(r.TB))
}

// socket is an AF_XDP socket that is bound to nothing. Maps of Linux 7.2 take none
// without a ring to receive by.
func (r *rig) socket() (fd int) {
	r.Helper()
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	r.must(err)
	r.Cleanup(func() { unix.Close(fd) })
	r.must(unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, 64))
	return fd
}

func nowNs(tb testing.TB) int64 {
	tb.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		tb.Fatal(err)
	}
	return ts.Nano()
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// What a program may return (include/uapi/linux/pkt_cls.h, bpf.h).
const (
	next     = ^uint32(0) // TC_ACT_UNSPEC
	shot     = 2          // TC_ACT_SHOT
	redirect = 7          // TC_ACT_REDIRECT

	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
)

// run gives a frame to the program of a point and returns its verdict and the
// frame as it left it.
func (r *rig) run(p xdpprog.Point, frame []byte) (uint32, []byte) {
	r.Helper()
	return r.runCtx(p, frame, nil)
}

// runCtx runs it with the beginning of a context, which the program may change.
func (r *rig) runCtx(p xdpprog.Point, frame []byte, ctx *skbContext) (uint32, []byte) {
	r.Helper()
	fd, err := unix.FcntlInt(uintptr(r.FilterFD(p)), unix.F_DUPFD_CLOEXEC, 0)
	r.must(err)
	prog, err := ebpf.NewProgramFromFD(fd)
	r.must(err)
	defer prog.Close()
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1}
	if ctx != nil {
		opts.Context, opts.ContextOut = ctx, ctx
	}
	ret, err := prog.Run(opts)
	if err != nil {
		r.Fatalf("run %s on %d bytes: %v", p, len(frame), err)
	}
	return ret, opts.DataOut
}

// skbContext is the beginning of struct __sk_buff (include/uapi/linux/bpf.h).
type skbContext struct {
	_       [2]uint32
	Mark    uint32
	_       [7]uint32
	Ifindex uint32
	_       [25]uint32
	_       [4]uint32 // flow_keys, tstamp
	_       uint32    // wire_len
	GSOSegs uint32
	_       [6]uint32 // sk, gso_size, hwtstamp and padding
}
