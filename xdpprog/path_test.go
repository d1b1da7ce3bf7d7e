package xdpprog_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// TestShortcut sees that a frame arrives in the other pod as a router or a
// bridge would have brought it there.
func TestShortcut(t *testing.T) {
	flows := []flowOf{
		{pod4, peer4, 1000, 80, layers.IPProtocolTCP},
		{pod6, peer6, 1000, 80, layers.IPProtocolTCP},
	}
	for _, f := range flows {
		r := newRig(t, nil)
		r.allow(f, xdpprog.FlowValue{Flags: xdpprog.FlowShortcut})
		in := f.frame(t, podMAC, hostMAC, "S")
		fate, out := r.fateOf(xdpprog.PodIngress, in)
		if fate != "shortcut" {
			t.Errorf("%v: got %q", f, fate)
		}
		want := eth(peerHostMAC, peerMAC, 0)
		ttl := uint8(63)
		checkArrived(t, in, out, want, ttl)

		bridged := f.frame(t, podMAC, peerMAC, "S")
		if fate, out := r.fateOf(xdpprog.PodIngress, bridged); fate != "shortcut" || !bytes.Equal(out, bridged) {
			t.Errorf("%v, bridged: %q, frame changed: %v", f, fate, !bytes.Equal(out, bridged))
		}

		dying := slices.Clone(in)
		setTTL(dying, 1)
		if got := r.fate(xdpprog.PodIngress, dying); got != "hit" {
			t.Errorf("%v, TTL 1: got %q, want the stack to answer", f, got)
		}

		r.must(r.PutEndpoint(peerSlot, xdpprog.Endpoint{Gen: peerGen}))
		if got := r.fate(xdpprog.PodIngress, in); got != "hit" {
			t.Errorf("%v, peer's link gone: got %q", f, got)
		}
	}
}

// TestTranslated sees that a flow whose packets go around the stack no longer does when
// one comes by it: the answers are the host's to translate back.
func TestTranslated(t *testing.T) {
	r := newRig(t, nil)
	f := flowOf{pod4, peer4, 53, 5000, layers.IPProtocolUDP}
	r.allow(f, xdpprog.FlowValue{Flags: xdpprog.FlowShortcut | xdpprog.FlowAudit})
	for _, step := range []struct {
		at     xdpprog.Point
		frame  []byte
		want   string
		counts [2]uint64 // packets from the pod and to it
	}{
		{xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, ""), "shortcut", [2]uint64{1, 0}},
		{xdpprog.PodEgress, f.reverse().frame(t, hostMAC, podMAC, ""), "hit", [2]uint64{1, 1}},
		{xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, ""), "hit", [2]uint64{2, 1}},
	} {
		got := r.fate(step.at, step.frame)
		v := r.flow(f)
		_, side := f.key()
		if n := [2]uint64{v.Packets[side], v.Packets[side^1]}; got != step.want || n != step.counts {
			t.Errorf("%v: %q, packets %d; want %q, %d", step.at, got, n, step.want, step.counts)
		}
	}
	if v := r.flow(f); v.Flags != xdpprog.FlowToPod|xdpprog.FlowAudit {
		t.Errorf("flags %#x", v.Flags)
	}
}

func setTTL(frame []byte, ttl uint8) {
	if frame[12] == 8 {
		frame[14+8] = ttl
		return
	}
	frame[14+7] = ttl
}

// checkArrived decodes a frame and compares its headers, checksums included.
func checkArrived(t *testing.T, in, out []byte, want *layers.Ethernet, ttl uint8) {
	t.Helper()
	p := gopacket.NewPacket(out, layers.LayerTypeEthernet, gopacket.Default)
	e := p.LinkLayer().(*layers.Ethernet)
	if !bytes.Equal(e.SrcMAC, want.SrcMAC) || !bytes.Equal(e.DstMAC, want.DstMAC) {
		t.Errorf("MACs %v > %v, want %v > %v", e.SrcMAC, e.DstMAC, want.SrcMAC, want.DstMAC)
	}
	expect := slices.Clone(in)
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		if ip.TTL != ttl {
			t.Errorf("TTL %d, want %d", ip.TTL, ttl)
		}
		expect[14+8] = ttl
		copy(expect[14+10:], out[14+10:14+12]) // checksum, below
		if sum := onesSum(out[14 : 14+20]); sum != 0xffff {
			t.Errorf("header checksum wrong: sum %#x", sum)
		}
	case *layers.IPv6:
		if ip.HopLimit != ttl {
			t.Errorf("hop limit %d, want %d", ip.HopLimit, ttl)
		}
		expect[14+7] = ttl
	}
	if !bytes.Equal(out[14:], expect[14:]) {
		t.Errorf("packet was changed beyond its TTL:\n got %x\nwant %x", out[14:], expect[14:])
	}
}

// onesSum is the one's complement sum (RFC 1071): 0xffff if a checksum is right.
func onesSum(b []byte) uint32 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

// TestShortcutChecksum decrements every TTL with many checksums.
func TestShortcutChecksum(t *testing.T) {
	r := newRig(t, nil)
	f := flowOf{pod4, peer4, 1000, 80, layers.IPProtocolTCP}
	r.allow(f, xdpprog.FlowValue{Flags: xdpprog.FlowShortcut})
	for i := range 2000 {
		ip := ip4(f.src, f.dst, f.proto)
		ip.TTL, ip.Id = uint8(2+i%254), uint16(i*33)
		frame := build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv4), ip, tcp(t, ip, f.sport, f.dport, "A"))
		ret, out := r.run(xdpprog.PodIngress, frame)
		if ret != redirect {
			t.Fatalf("verdict %d", ret)
		}
		if sum := onesSum(out[14 : 14+20]); sum != 0xffff {
			t.Fatalf("TTL %d, id %d: sum %#x", ip.TTL, ip.Id, sum)
		}
	}
}

// TestSteerAndDeliver follows a frame up to the worker and back: it resumes as
// it was, at the hook that it was taken from.
func TestSteerAndDeliver(t *testing.T) {
	r := newRig(t, nil)
	out := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	for _, c := range []struct {
		at    xdpprog.Point
		hook  xdpprog.Hook
		verb  xdpprog.Verb
		frame []byte
	}{
		{xdpprog.PodIngress, xdpprog.HookFromPod, xdpprog.VerbResumeFromPod, out.frame(t, podMAC, hostMAC, "S")},
		{xdpprog.PodEgress, xdpprog.HookToPod, xdpprog.VerbResumeToPod, out.reverse().frame(t, strangerMAC, podMAC, "S")},
	} {
		fate, up := r.fateOf(c.at, c.frame)
		hook, worker, slot, ok := xdpprog.ParseTag(up)
		if fate != "steered" || !ok || hook != c.hook || worker != 0 || slot != podSlot {
			t.Fatalf("%s: %q, tag %v hook %d worker %d slot %d", c.at, fate, ok, hook, worker, slot)
		}
		if ret, _ := r.run(xdpprog.PortXDP, up); ret != xdpRedirect {
			t.Errorf("%s: steer says %d, want redirect", c.at, ret)
		}
		xdpprog.PutTag(up, c.verb, worker, slot)
		fate, down := r.fateOf(xdpprog.PortIngress, up)
		if fate != "resumed" || !bytes.Equal(down, c.frame) {
			t.Errorf("%s: %q, and the frame comes back\n as %x\nnot %x", c.at, fate, down, c.frame)
		}
		// The mark by which divert knows it again.
		mark := &skbContext{Ifindex: loopback, Mark: uint32(r.Seed()>>32) | 1}
		if ret, _ := r.runCtx(c.at, down, mark); ret != next || mark.Mark != 0 {
			t.Errorf("%s again: verdict %d, mark %#x, want to go on with the mark cleared", c.at, int32(ret), mark.Mark)
		}
	}
	in := out.frame(t, hostMAC, podMAC, "S")
	xdpprog.PutTag(in, xdpprog.VerbShortcut, 0, peerSlot)
	fate, down := r.fateOf(xdpprog.PortIngress, in)
	if fate != "delivered" || !bytes.Equal(down[:6], peerMAC[:]) || !bytes.Equal(down[6:], in[6:]) {
		t.Errorf("shortcut: %q to %x", fate, down[:12])
	}
}

func TestTagsThatNobodyWrote(t *testing.T) {
	r := newRig(t, nil)
	frame := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}.frame(t, podMAC, hostMAC, "S")
	steerFate := func() string {
		before, _ := r.counters()
		ret, _ := r.run(xdpprog.PortXDP, frame)
		after, _ := r.counters()
		if bad := int(before[22]) + 1; ret == xdpDrop && int(after[22]) == bad {
			return "bad tag"
		}
		return "other"
	}
	if got := steerFate(); got != "bad tag" {
		t.Errorf("steer: %s", got)
	}
	if _, _, _, ok := xdpprog.ParseTag(frame); ok {
		t.Error("ParseTag takes a frame without a tag")
	}
	if _, _, _, ok := xdpprog.ParseTag(frame[:13]); ok {
		t.Error("ParseTag takes a frame that is too short")
	}
	xdpprog.PutTag(frame, 7, 0, podSlot)
	if got := r.fate(xdpprog.PortIngress, frame); got != "drop bad-tag" {
		t.Errorf("deliver: %s", got)
	}
	for _, slot := range []uint32{0, 9, 1 << 20} {
		xdpprog.PutTag(frame, xdpprog.VerbResumeToPod, 0, slot)
		if got := r.fate(xdpprog.PortIngress, frame); got != "drop unknown-endpoint" {
			t.Errorf("deliver to slot %d: %s", slot, got)
		}
	}
	// A worker without a socket: dropped, not passed up the stack.
	xdpprog.PutTag(frame, 0, 9, podSlot)
	if ret, _ := r.run(xdpprog.PortXDP, frame); ret != xdpDrop {
		t.Errorf("steer to a worker without a socket: %d", ret)
	}
}
