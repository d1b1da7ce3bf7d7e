package xdpprog_test

import (
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// allow puts a flow of the pod at podSlot into the flow cache, opened by its
// source, admitted by the rules in force. The caller may set the rest.
func (r *rig) allow(f flowOf, v xdpprog.FlowValue) {
	r.Helper()
	k, side := f.key()
	v.Initiator = side
	for s, a := range [2]xdpprog.Addr{k.A, k.B} {
		switch a {
		case addr(pod4), addr(pod6):
			v.Slot[s], v.Gen[s] = podSlot, podGen
		case addr(peer4), addr(peer6):
			v.Slot[s], v.Gen[s] = peerSlot, peerGen
		}
	}
	n, err := xdpprog.UpdateFlows(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.FlowValue{v})
	if n != 1 {
		r.Fatalf("write flow: %d, %v", n, err)
	}
}

func (r *rig) flow(f flowOf) xdpprog.FlowValue {
	r.Helper()
	var v xdpprog.FlowValue
	k, _ := f.key()
	if !xdpprog.LookupFlow(r.Objects, &k, &v) {
		r.Fatal("flow is not in the cache")
	}
	return v
}

func TestCacheHit(t *testing.T) {
	for _, f := range []flowOf{
		{pod4, far4, 1000, 80, layers.IPProtocolTCP},
		{far4, pod4, 80, 1000, layers.IPProtocolTCP},
		{pod6, peer6, 1000, 80, layers.IPProtocolTCP},
		{pod4, peer4, 53, 53, layers.IPProtocolUDP},
		{pod4, far4, 9, 9, layers.IPProtocolICMPv4},
		{pod6, peer6, 9, 9, layers.IPProtocolICMPv6},
	} {
		r := newRig(t, nil)
		r.allow(f, xdpprog.FlowValue{})
		opening, answer := "S", "SA"
		if f.proto == layers.IPProtocolICMPv4 || f.proto == layers.IPProtocolICMPv6 {
			opening, answer = "", "reply"
		}
		at, back := xdpprog.PodIngress, xdpprog.PodEgress
		src, dst := podMAC, hostMAC
		if f.src == far4 {
			at, back, src, dst = back, at, hostMAC, podMAC
		}
		if got := r.fate(at, f.frame(t, src, dst, opening)); got != "hit" {
			t.Errorf("%v: got %q", f, got)
		}
		if got := r.fate(back, f.reverse().frame(t, dst, src, answer)); got != "hit" {
			t.Errorf("%v, answer: got %q", f, got)
		}
	}
}

// TestTraffic sees that what the caches judge is counted by hook and verdict,
// and what a worker gets is not.
func TestTraffic(t *testing.T) {
	r := newRig(t, nil)
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	steered := flowOf{pod4, far4, 1001, 80, layers.IPProtocolTCP}
	r.allow(f, xdpprog.FlowValue{})
	out, in := f.frame(t, podMAC, hostMAC, "S"), f.reverse().frame(t, hostMAC, podMAC, "SA")
	r.fate(xdpprog.PodIngress, out)
	r.fate(xdpprog.PodIngress, out)
	r.fate(xdpprog.PodEgress, in)
	r.fate(xdpprog.PodIngress, steered.frame(t, podMAC, hostMAC, "S"))
	denied := flowOf{pod4, far4, 1002, 80, layers.IPProtocolTCP}
	k, side := denied.key()
	v := xdpprog.DenyValue{Sides: 1 << side, SinceNs: uint64(nowNs(t)) - uint64(time.Second)}
	v.Slot[side], v.Gen[side] = podSlot, podGen
	if _, err := xdpprog.UpdateDenied(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.DenyValue{v}); err != nil {
		t.Fatal(err)
	}
	bad := denied.frame(t, podMAC, hostMAC, "S")
	r.fate(xdpprog.PodIngress, bad)
	got, err := r.Traffic()
	if err != nil {
		t.Fatal(err)
	}
	want := [xdpprog.NumTraffic]xdpprog.Traffic{
		xdpprog.HookFromPod: {Packets: 2, Bytes: 2 * uint64(len(out))},
		xdpprog.HookToPod:   {Packets: 1, Bytes: uint64(len(in))},
		uint8(xdpprog.HookFromPod) | xdpprog.TrafficDenied: {Packets: 1, Bytes: uint64(len(bad))},
	}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestCacheCounts sees that each packet of a flow between two pods is counted
// once, where it leaves its pod.
func TestCacheCounts(t *testing.T) {
	r := newRig(t, nil)
	f := flowOf{pod4, peer4, 1000, 80, layers.IPProtocolTCP}
	r.allow(f, xdpprog.FlowValue{})
	out := f.frame(t, podMAC, hostMAC, "S")
	began := nowNs(t)
	r.fate(xdpprog.PodIngress, out)
	r.fate(xdpprog.PodEgress, f.reverse().frame(t, hostMAC, podMAC, "SA"))
	v := r.flow(f)
	_, side := f.key()
	if v.Packets[side] != 1 || v.Bytes[side] != uint64(len(out)) || v.TCPFlags[side] != 2 {
		t.Errorf("from the pod: %d packets, %d bytes, flags %#x", v.Packets[side], v.Bytes[side], v.TCPFlags[side])
	}
	if v.Packets[side^1] != 0 {
		t.Errorf("%d packets of the other pod counted where they arrive", v.Packets[side^1])
	}
	// The programs' clock is up to a tick late.
	if seen := int64(v.LastSeenNs); seen < began-int64(time.Second) || seen > nowNs(t) {
		t.Errorf("last seen %v after it was sent", time.Duration(seen-began))
	}
	// A segmented packet counts as what it will be on the wire.
	r.fateCtx(xdpprog.PodIngress, out, &skbContext{Ifindex: loopback, GSOSegs: 3})
	if v := r.flow(f); v.Packets[side] != 4 {
		t.Errorf("%d packets after one of 3 segments, want 4", v.Packets[side])
	}
}

// TestCacheMiss lists what must go to the worker though the flow is known.
func TestCacheMiss(t *testing.T) {
	tcp := flowOf{pod4, peer4, 1000, 80, layers.IPProtocolTCP}
	echo := flowOf{pod4, peer4, 9, 9, layers.IPProtocolICMPv4}
	for _, c := range []struct {
		name   string
		flow   flowOf
		value  xdpprog.FlowValue
		change func(*rig)
		at     xdpprog.Point
		reply  bool
		flags  string
		want   string
	}{
		{"current", tcp, xdpprog.FlowValue{}, nil, xdpprog.PodIngress, false, "A", "hit"},
		{"own rules changed", tcp, xdpprog.FlowValue{}, func(r *rig) {
			r.must(r.PutEndpoint(podSlot, xdpprog.Endpoint{Ifindex: loopback, Gen: podGen + 1, MAC: podMAC, HostMAC: hostMAC}))
		}, xdpprog.PodIngress, false, "A", "steered"},
		{"peer's rules changed", tcp, xdpprog.FlowValue{}, func(r *rig) {
			r.must(r.PutEndpoint(peerSlot, xdpprog.Endpoint{Ifindex: peerLink, Gen: peerGen + 1, MAC: peerMAC}))
		}, xdpprog.PodIngress, false, "A", "steered"},
		{"another pod's address", tcp, xdpprog.FlowValue{}, func(r *rig) { r.must(r.BindLink(loopback, peerSlot)) },
			xdpprog.PodEgress, false, "A", "drop misdirected"},
		{"responder opens", tcp, xdpprog.FlowValue{}, nil, xdpprog.PodEgress, true, "S", "steered"},
		{"responder answers", tcp, xdpprog.FlowValue{}, nil, xdpprog.PodEgress, true, "SA", "hit"},
		{"port is used again", tcp, xdpprog.FlowValue{Ended: xdpprog.EndedRst}, nil, xdpprog.PodIngress, false, "S", "steered"},
		{"closed, still talking", tcp, xdpprog.FlowValue{Ended: xdpprog.EndedFinA}, nil, xdpprog.PodIngress, false, "A", "hit"},
		{"echo", echo, xdpprog.FlowValue{}, nil, xdpprog.PodIngress, false, "", "hit"},
		{"echo reply", echo, xdpprog.FlowValue{}, nil, xdpprog.PodEgress, true, "reply", "hit"},
		{"echo of the responder", echo, xdpprog.FlowValue{}, nil, xdpprog.PodEgress, true, "", "steered"},
		{"reply of the initiator", echo, xdpprog.FlowValue{}, nil, xdpprog.PodIngress, false, "reply", "steered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.allow(c.flow, c.value)
			if c.change != nil {
				c.change(r)
			}
			f, src, dst := c.flow, podMAC, hostMAC
			if c.reply {
				f = f.reverse()
			}
			if c.at == xdpprog.PodEgress {
				src, dst = hostMAC, podMAC
			}
			if got := r.fate(c.at, f.frame(t, src, dst, c.flags)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestEnds sees that each side's FIN, and a reset, are told to the agent once.
func TestEnds(t *testing.T) {
	r := newRig(t, nil)
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	r.allow(f, xdpprog.FlowValue{})
	notes, err := r.Notes()
	r.must(err)
	t.Cleanup(func() { notes.Close() })
	key, side := f.key()
	mine, theirs := xdpprog.EndedFinA, xdpprog.EndedFinB
	if side == 1 {
		mine, theirs = theirs, mine
	}
	send := func(at xdpprog.Point, f flowOf, flags string) {
		t.Helper()
		src, dst := podMAC, hostMAC
		if at == xdpprog.PodEgress {
			src, dst = dst, src
		}
		if got := r.fate(at, f.frame(t, src, dst, flags)); got != "hit" {
			t.Fatalf("%s: got %q", flags, got)
		}
	}
	send(xdpprog.PodIngress, f, "FA")
	send(xdpprog.PodIngress, f, "FA") // again
	send(xdpprog.PodEgress, f.reverse(), "FA")
	send(xdpprog.PodIngress, f, "R")
	got := make([]xdpprog.Note, 8)
	n, err := notes.Read(got, time.Second)
	wants := []uint8{mine, mine | theirs, mine | theirs | xdpprog.EndedRst}
	if err != nil || n != len(wants) {
		t.Fatalf("read %d notes, %v; want %d", n, err, len(wants))
	}
	for i, want := range wants {
		if note := got[i]; note.Kind != xdpprog.NoteEnd || note.Key != key || note.Ended != want || note.Worker != 0 {
			t.Errorf("got %+v, want ended %#x", note, want)
		}
	}
	if n, err := notes.Read(got, time.Millisecond); n != 0 || err != nil {
		t.Errorf("no note is waiting: got %d, %v", n, err)
	}

}
