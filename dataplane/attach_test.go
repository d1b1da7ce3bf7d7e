package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/xdpprog"
)

// heldFilters stands for a kernel that takes its time to attach a program to
// one link, and can't for another.
type heldFilters struct {
	slow, broken  int
	reached, goOn chan struct{}

	mu  sync.Mutex
	did []string
}

func (f *heldFilters) note(what string, p xdpprog.Point, ifindex int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, fmt.Sprint(what, " ", p, " ", ifindex))
}

func (f *heldFilters) Attach(p xdpprog.Point, ifindex, _ int) error {
	if ifindex == f.broken {
		return errors.New("no such device")
	}
	if ifindex == f.slow && p == xdpprog.PodEgress {
		close(f.reached)
		<-f.goOn
	}
	f.note("attach", p, ifindex)
	return nil
}

func (f *heldFilters) Detach(p xdpprog.Point, ifindex int) error {
	f.note("detach", p, ifindex)
	return nil
}

func (f *heldFilters) Attached(xdpprog.Point, int) bool { return false }

// newTestPlane is a plane whose maps are the kernel's, and whose filters are
// the test's.
func newTestPlane(t *testing.T, filters Filters) *Plane {
	t.Helper()
	cfg := testConfig(t)
	cfg.Clsact = true
	p := openPlane(t, cfg, filters)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// needRoot skips a test that needs root, unless REQUIRE_PRIV=1 says that it must run.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		t.Fatal("REQUIRE_PRIV=1, but not root")
	}
	t.Skip("needs root")
}

// testConfig has small maps, on a bpffs that is mounted nowhere.
func testConfig(t *testing.T) Config {
	t.Helper()
	needRoot(t)
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mnt) })
	cfg := Default()
	cfg.PinPath, cfg.Endpoints, cfg.HugePages = fmt.Sprintf("/proc/self/fd/%d", mnt), 7, false
	cfg.FlowCache, cfg.AdmitCache, cfg.DenyCache, cfg.Fragments = 256, 64, 256, 64
	cfg.Flow.Capacity, cfg.HeartbeatTimeout = 1<<12, 200*time.Millisecond
	return cfg
}

func openPlane(t *testing.T, cfg Config, filters Filters) *Plane {
	t.Helper()
	p, err := New(cfg, filters, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// While the kernel attaches a program, rules are published and other links are
// attached; what is not diverted yet is not said to be enforced, and who wants
// to detach it waits.
func TestAttachHoldsNobodyUp(t *testing.T) {
	f := &heldFilters{slow: 70, broken: 71, reached: make(chan struct{}), goOn: make(chan struct{})}
	p := newTestPlane(t, f)
	pod := func(name string, ifindex int) endpoint.Endpoint {
		return endpoint.Endpoint{Namespace: "x", Name: name, Link: endpoint.Link{Ifindex: ifindex, MAC: macA, HostMAC: hostA}}
	}
	attached, detached := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := p.Attach(pod("slow", 70))
		attached <- err
	}()
	<-f.reached
	if other, err := p.Attach(pod("other", 72)); err != nil || other != slotB {
		t.Fatalf("other: endpoint %d, %v", other, err)
	}
	if _, err := p.Attach(pod("broken", 71)); err == nil {
		t.Fatal("attached to a link that is not there")
	}
	table, err := classify.Build(testSet(1, web...))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(table); err != nil {
		t.Fatal(err)
	}
	if a, b := p.Generation(slotA), p.Generation(slotB); a != 0 || b == 0 {
		t.Errorf("generations in force: %d behind the slow link, %d behind the other", a, b)
	}
	if e, err := p.objs.Endpoint(uint32(slotA)); err != nil || e.Gen == 0 || e.Gen&notInForce != 0 {
		t.Errorf("rules of the slow link's endpoint: %+v, %v", e, err)
	}
	waiting := make(chan struct{})
	go func() {
		close(waiting)
		detached <- p.Detach(slotA)
	}()
	<-waiting
	close(f.goOn)
	if err := errors.Join(<-attached, <-detached); err != nil {
		t.Fatal(err)
	}
	if eps := p.Endpoints(); len(eps) != 1 || eps[0].Name != "other" {
		t.Errorf("endpoints %v", eps)
	}
	last, first := slices.Index(f.did, "attach pod-egress 70"), slices.Index(f.did, "detach pod-ingress 70")
	if last < 0 || first < last {
		t.Errorf("detached while being attached: %q", f.did)
	}
	if links, err := p.objs.BoundLinks(); err != nil || len(links) != 1 {
		t.Errorf("bound links %v, %v", links, err)
	}
	if len(p.turns.busy) > 0 {
		t.Errorf("turns not over: %v", p.turns.busy)
	}
}
