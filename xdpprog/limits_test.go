package xdpprog_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// TestDenied sees that a denied flow is dropped in the kernel, as far as the
// entry goes, and judged anew when it is old.
func TestDenied(t *testing.T) {
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	k, side := f.key()
	for _, c := range []struct {
		name   string
		change func(*xdpprog.DenyValue)
		want   string
		answer string // of the other side
	}{
		{"this side", func(*xdpprog.DenyValue) {}, "drop policy", "steered"},
		{"both sides", func(v *xdpprog.DenyValue) { v.Sides = 3 }, "drop policy", "drop policy"},
		{"the other side", func(v *xdpprog.DenyValue) { v.Sides = 1 << (side ^ 1) }, "steered", "drop policy"},
		{"older rules", func(v *xdpprog.DenyValue) { v.Gen[side]-- }, "steered", "steered"},
		{"another pod's", func(v *xdpprog.DenyValue) { v.Slot[side], v.Gen[side] = peerSlot, peerGen }, "steered", "steered"},
		{"by a clock ahead of the programs'", func(v *xdpprog.DenyValue) { v.SinceNs += uint64(2 * time.Second) }, "drop policy", "steered"},
		{"too old", func(v *xdpprog.DenyValue) { v.SinceNs -= uint64(2 * time.Minute) }, "steered", "steered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			v := xdpprog.DenyValue{Sides: 1 << side, SinceNs: uint64(nowNs(t)) - uint64(time.Second)}
			v.Slot[side], v.Gen[side] = podSlot, podGen
			c.change(&v)
			_, err := xdpprog.UpdateDenied(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.DenyValue{v})
			r.must(err)
			out := f.frame(t, podMAC, hostMAC, "S")
			if got := r.fate(xdpprog.PodIngress, out); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := r.fate(xdpprog.PodEgress, f.reverse().frame(t, hostMAC, podMAC, "SA")); got != c.answer {
				t.Errorf("answer: got %q, want %q", got, c.answer)
			}
			if c.want != "drop policy" {
				return
			}
			if !xdpprog.LookupDenied(r.Objects, &k, &v) || v.Packets == 0 || v.Bytes < uint64(len(out)) {
				t.Errorf("counted %d packets, %d bytes", v.Packets, v.Bytes)
			}
		})
	}
}

// TestAgentDown lists what a dead worker looks like.
func TestAgentDown(t *testing.T) {
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	known := flowOf{pod4, far4, 1001, 80, layers.IPProtocolTCP}
	for _, c := range []struct {
		name string
		kill func(*rig)
	}{
		{"no port", func(r *rig) { r.must(r.SetPort(0, 0)) }},
		{"heartbeat too old", func(r *rig) { r.Beat(0, nowNs(r.TB)-int64(2*time.Minute)) }},
		{"never a heartbeat", func(r *rig) { r.Beat(0, 0) }},
	} {
		for _, open := range []bool{false, true} {
			r := newRig(t, func(cfg *xdpprog.Config) { cfg.FailOpen = open })
			r.allow(known, xdpprog.FlowValue{})
			c.kill(r)
			want := "drop agent-down"
			if open {
				want = "fail-open"
			}
			if got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "S")); got != want {
				t.Errorf("%s, open %v: got %q, want %q", c.name, open, got, want)
			}
			if got := r.fate(xdpprog.PodIngress, known.frame(t, podMAC, hostMAC, "A")); got != "hit" {
				t.Errorf("%s, open %v, known flow: got %q", c.name, open, got)
			}
			if got := r.fate(xdpprog.PodIngress, f.frame(t, strangerMAC, hostMAC, "S")); got != "drop spoofed-mac" {
				t.Errorf("%s, open %v, spoofed: got %q", c.name, open, got)
			}
		}
	}
}

// TestBudget sees that a pod's misses are limited, and neither what comes to it nor
// another pod's.
func TestBudget(t *testing.T) {
	const burst = 10
	r := newRig(t, func(c *xdpprog.Config) { c.MissRate, c.MissBurst = 1, burst })
	began := nowNs(t)
	full := min(burst, int(began/int64(time.Second))) // a bucket fills from boot on
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	steered := 0
	for range 5 * burst {
		switch got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "S")); got {
		case "steered":
			steered++
		case "drop rate-limited":
		default:
			t.Fatalf("got %q", got)
		}
	}
	// One token a second: as many as the test took seconds may have come.
	if most := burst + int((nowNs(t)-began)/int64(time.Second)) + 1; steered < full || steered > most {
		t.Errorf("%d of %d went on, want %d to %d", steered, 5*burst, full, most)
	}
	if got := r.fate(xdpprog.PodEgress, flowOf{far4, pod4, 1, 2, layers.IPProtocolUDP}.frame(t, hostMAC, podMAC, "")); got != "steered" {
		t.Errorf("to the pod: %q", got)
	}
	r.must(r.BindLink(loopback, peerSlot))
	if got := r.fate(xdpprog.PodIngress, flowOf{peer4, far4, 1, 2, layers.IPProtocolUDP}.frame(t, peerMAC, hostMAC, "")); got != "steered" {
		t.Errorf("another pod: %q", got)
	}
}

// TestBudgetOfTwoCPUs sees that a packet whose time was read before another CPU
// filled the bucket fills it no second time.
func TestBudgetOfTwoCPUs(t *testing.T) {
	var path string
	r := newRig(t, func(c *xdpprog.Config) { c.MissRate, c.MissBurst, path = 1, 10, c.PinPath })
	buckets, err := ebpf.LoadPinnedMap(filepath.Join(path, "maps", "buckets"), nil)
	r.must(err)
	defer buckets.Close()
	r.must(buckets.Put(2*uint32(podSlot)+uint32(xdpprog.HookFromPod), struct {
		Lock, Tokens uint32
		FilledNs     uint64
	}{FilledNs: uint64(nowNs(t)) + uint64(time.Hour)}))
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	if got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "S")); got != "drop rate-limited" {
		t.Errorf("with no token left: %q", got)
	}
}

// TestInspectMode sees that without offload nothing is answered by the caches
// and nothing is limited.
func TestInspectMode(t *testing.T) {
	r := newRig(t, func(c *xdpprog.Config) { c.Offload, c.MissRate, c.MissBurst = false, 1, 1 })
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	r.allow(f, xdpprog.FlowValue{})
	for range 20 {
		if got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "A")); got != "steered" {
			t.Fatalf("got %q", got)
		}
	}
}

// TestOwner compares the worker that divert chooses with what Go computes, and
// sees that both directions meet and the load spreads.
func TestOwner(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 7, xdpprog.MaxWorkers} {
		r := newRig(t, func(c *xdpprog.Config) { c.Workers = workers })
		rnd := rand.New(rand.NewPCG(1, uint64(workers)))
		load := make([]int, workers)
		for i := range 400 {
			f := flowOf{pod4, far4, uint16(rnd.Uint32()), uint16(rnd.Uint32()), layers.IPProtocolUDP}
			if i%2 == 1 {
				f.src, f.dst = pod6, peer6
			}
			k, _ := f.key()
			want := xdpprog.Owner(&k, r.Seed(), uint32(workers))
			ret, up := r.run(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, ""))
			back, down := r.run(xdpprog.PodEgress, f.reverse().frame(t, hostMAC, podMAC, ""))
			_, there, _, _ := xdpprog.ParseTag(up)
			_, here, _, _ := xdpprog.ParseTag(down)
			if ret != redirect || back != redirect || uint32(there) != want || uint32(here) != want {
				t.Fatalf("%v of %d workers: there %d, back %d, Go says %d", f, workers, there, here, want)
			}
			load[want]++
		}
		for w, n := range load {
			if n == 0 && workers <= 7 || n > 4*(400/workers+8) {
				t.Errorf("worker %d of %d got %d of 400 flows", w, workers, n)
			}
		}
	}
}

// TestEveryWay loads the programs as differently configured agents do: what a
// verifier sees of them depends on what is off.
func TestEveryWay(t *testing.T) {
	for i, c := range []struct{ offload, open, shortcut, uplinks, budget, workers bool }{
		{offload: true, shortcut: true, budget: true}, // the default
		{},
		{offload: true, shortcut: true, uplinks: true, budget: true, workers: true},
		{uplinks: true, workers: true, open: true},
		{uplinks: true, budget: true},
		{offload: true, uplinks: true, open: true},
		{budget: true, workers: true, shortcut: true},
		{offload: true, open: true, workers: true},
	} {
		cfg := smallConfig(bpffs(t))
		cfg.Offload, cfg.FailOpen, cfg.Shortcut, cfg.Uplinks = c.offload, c.open, c.shortcut, c.uplinks
		if c.budget {
			cfg.MissRate, cfg.MissBurst = 1000, 100
		}
		if c.workers {
			cfg.Workers = 3
		}
		o, _, err := xdpprog.Load(cfg)
		if err != nil {
			t.Errorf("way %d, %+v: %v", i, c, err)
			continue
		}
		check(t, o.Close())
	}
}
