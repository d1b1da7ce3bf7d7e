package xdpprog_test

import (
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// admits reports whether divert opens a flow by itself for a frame of the pod's link.
func (r *rig) admits(at xdpprog.Point, frame []byte) bool {
	r.Helper()
	_, was := r.counters()
	r.run(at, frame)
	_, now := r.counters()
	return now[xdpprog.CountAdmitted] != was[xdpprog.CountAdmitted]
}

// TestAdmit lists what divert lets a pair open by itself.
func TestAdmit(t *testing.T) {
	tcp, udp := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}, flowOf{pod4, far4, 1000, 80, layers.IPProtocolUDP}
	in := udp.reverse()
	in.sport, in.dport = 1000, 80
	r := newRig(t, nil)
	for i, c := range []struct {
		name   string
		f      flowOf
		flags  string
		hook   xdpprog.Hook // at which the pair was learned
		change func(v *xdpprog.AdmitValue)
		want   bool
	}{
		{name: "SYN", f: tcp, flags: "S", want: true},
		{name: "UDP", f: udp, want: true},
		{name: "to the pod", f: in, hook: xdpprog.HookToPod, want: true},
		{name: "TCP under way", f: tcp, flags: "A"},
		{name: "answer to a SYN", f: tcp, flags: "SA"},
		{name: "learned at the other hook", f: udp, hook: xdpprog.HookToPod},
		{name: "to the pod, learned at the other hook", f: in, hook: xdpprog.HookFromPod},
		{name: "of another slot", f: udp, change: func(v *xdpprog.AdmitValue) { v.Slot[0], v.Gen[0] = peerSlot, peerGen }},
		{name: "to the pod, of another slot", f: in, hook: xdpprog.HookToPod,
			change: func(v *xdpprog.AdmitValue) { v.Slot[1], v.Gen[1] = peerSlot, peerGen }},
		{name: "by older rules", f: udp, change: func(v *xdpprog.AdmitValue) { v.Gen[0]-- }},
		{name: "by older rules of its peer", f: udp, change: func(v *xdpprog.AdmitValue) { v.Slot[1], v.Gen[1] = peerSlot, peerGen-1 }},
		{name: "no worker", f: udp, change: func(*xdpprog.AdmitValue) { r.Beat(0, nowNs(t)-int64(2*time.Minute)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Beat(0, nowNs(t))
			c.f.dport += uint16(i) // none has what another was about
			at, from, to := xdpprog.PodIngress, podMAC, hostMAC
			v := xdpprog.AdmitValue{Slot: [2]uint32{podSlot, 0}, Gen: [2]uint32{podGen, 0}}
			if c.f.dst == pod4 {
				at, from, to = xdpprog.PodEgress, hostMAC, podMAC
				v.Slot, v.Gen = [2]uint32{0, podSlot}, [2]uint32{0, podGen}
			}
			if c.change != nil {
				c.change(&v)
			}
			k := xdpprog.AdmitKey{Src: addr(c.f.src), Dst: addr(c.f.dst), DPort: c.f.dport, Proto: uint8(c.f.proto), Hook: uint8(c.hook)}
			_, err := xdpprog.UpdateAdmits(r.Objects, []xdpprog.AdmitKey{k}, []xdpprog.AdmitValue{v})
			r.must(err)
			if got := r.admits(at, c.f.frame(t, from, to, c.flags)); got != c.want {
				t.Errorf("admitted: %v, want %v", got, c.want)
			}
		})
	}
}

// TestAdmitBudget sees that what a pair opens by itself is taken from the pod's budget.
func TestAdmitBudget(t *testing.T) {
	const flows = 50 // the budget has one a second
	r := newRig(t, func(c *xdpprog.Config) { c.MissRate, c.MissBurst = 1, 1 })
	k := xdpprog.AdmitKey{Src: addr(pod4), Dst: addr(far4), DPort: 80, Proto: uint8(layers.IPProtocolUDP), Hook: uint8(xdpprog.HookFromPod)}
	v := xdpprog.AdmitValue{Slot: [2]uint32{podSlot, 0}, Gen: [2]uint32{podGen, 0}}
	_, err := xdpprog.UpdateAdmits(r.Objects, []xdpprog.AdmitKey{k}, []xdpprog.AdmitValue{v})
	r.must(err)
	admitted := 0
	for port := range uint16(flows) {
		if r.admits(xdpprog.PodIngress, flowOf{pod4, far4, port + 1, 80, layers.IPProtocolUDP}.frame(t, podMAC, hostMAC, "")) {
			admitted++
		}
	}
	if admitted == flows {
		t.Errorf("all of %d admitted", flows)
	}
}

// TestDeniedEcho sees that of a denied echo the question is dropped in the kernel, and
// what would answer another only if all of the flow is denied.
func TestDeniedEcho(t *testing.T) {
	r := newRig(t, nil)
	for _, f := range []flowOf{{pod4, far4, 5, 5, layers.IPProtocolICMPv4}, {pod6, peer6, 5, 5, layers.IPProtocolICMPv6}} {
		for _, all := range []bool{false, true} {
			k, side := f.key()
			v := xdpprog.DenyValue{Sides: 1 << side, SinceNs: uint64(nowNs(t)) - uint64(time.Second)}
			v.Slot[side], v.Gen[side] = podSlot, podGen
			want := "steered"
			if all {
				v.Sides, want = 3, "drop policy"
			}
			_, err := xdpprog.UpdateDenied(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.DenyValue{v})
			r.must(err)
			if got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "S")); got != "drop policy" {
				t.Errorf("%v, all %t: question: %q", f, all, got)
			}
			if got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "reply")); got != want {
				t.Errorf("%v, all %t: answer: %q, want %q", f, all, got, want)
			}
		}
	}
}
