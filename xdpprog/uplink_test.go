package xdpprog_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

var nicMAC = [6]byte{2, 0, 0, 0, 0, 0x30}

// newUplink makes the loopback link, by which single packets come, an uplink
// with one queue.
func newUplink(t *testing.T, change func(*xdpprog.Config)) *rig {
	t.Helper()
	r := newRig(t, func(c *xdpprog.Config) {
		c.Uplinks = true
		if change != nil {
			change(c)
		}
	})
	r.must(r.SetPodAddrs(podSlot, []xdpprog.Addr{addr(pod4), addr(pod6)}))
	r.must(r.SetPodAddrs(peerSlot, []xdpprog.Addr{addr(peer4), addr(peer6)}))
	r.must(r.SetUplinkSocket(7, r.socket()))
	r.must(r.PutUplink(loopback, xdpprog.Uplink{Base: 7, Queues: 1, Room: 1500, MAC: nicMAC}))
	return r
}

// arrives gives a frame to the uplink's program and says what became of it.
func (r *rig) arrives(frame []byte) string {
	r.Helper()
	before := slices.Clone(frame)
	_, was := r.counters()
	ret, out := r.run(xdpprog.UplinkXDP, frame)
	if !bytes.Equal(out, before) {
		r.Error("the frame was changed")
	}
	_, now := r.counters()
	counted := ""
	for c := range now {
		if now[c] > was[c] {
			counted += " " + xdpprog.Counter(c).String()
		}
	}
	names := map[uint32]string{xdpDrop: "drop", 2: "pass", xdpRedirect: "redirect"}
	return names[ret] + counted
}

const (
	untouched = "pass" // uncounted: none of the program's business
	passed    = "pass uplink-passed"
	steered   = "redirect uplink-steered"
	denied    = "drop uplink-denied"
)

var (
	in4  = flowOf{far4, pod4, 1000, 80, layers.IPProtocolTCP}
	in6  = flowOf{peer6, pod6, 1000, 80, layers.IPProtocolTCP}
	udp4 = flowOf{far4, pod4, 1000, 53, layers.IPProtocolUDP}
	udp6 = flowOf{peer6, pod6, 1000, 53, layers.IPProtocolUDP}
)

// TestUplinkPasses lists what an uplink leaves alone: what is not for a pod of
// this node, or not plain.
func TestUplinkPasses(t *testing.T) {
	r := newUplink(t, nil)
	tagged := build(t, eth(strangerMAC, nicMAC, layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 3, Type: layers.EthernetTypeIPv4},
		gopacket.Payload(in4.frame(t, strangerMAC, nicMAC, "S")[14:]))
	options := ip4(far4, pod4, layers.IPProtocolUDP)
	options.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	fragment := ip4(far4, pod4, layers.IPProtocolUDP)
	fragment.Flags = layers.IPv4MoreFragments
	ext := build(t, eth(strangerMAC, nicMAC, layers.EthernetTypeIPv6), ip6(peer6, pod6, layers.IPProtocolIPv6Destination),
		gopacket.Payload(append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 16)...)))
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"for another MAC", in4.frame(t, strangerMAC, hostMAC, "S"), untouched},
		{"for the host", flowOf{far4, host4, 1000, 22, layers.IPProtocolTCP}.frame(t, strangerMAC, nicMAC, "S"), untouched},
		{"from a pod", in4.reverse().frame(t, strangerMAC, nicMAC, "S"), untouched},
		{"ARP", arp(t, strangerMAC, strangerMAC, far4), untouched},
		{"VLAN", tagged, untouched},
		{"IPv4 options", build(t, eth(strangerMAC, nicMAC, layers.EthernetTypeIPv4), options, gopacket.Payload(make([]byte, 40))), untouched},
		{"fragment", build(t, eth(strangerMAC, nicMAC, layers.EthernetTypeIPv4), fragment, gopacket.Payload(make([]byte, 40))), untouched},
		{"extension header", ext, untouched},
		{"echo reply", flowOf{far4, pod4, 5, 5, layers.IPProtocolICMPv4}.frame(t, strangerMAC, nicMAC, "reply"), untouched},
		{"ESP", build(t, eth(strangerMAC, nicMAC, layers.EthernetTypeIPv4), ip4(far4, pod4, layers.IPProtocolESP), gopacket.Payload(make([]byte, 40))), untouched},
		{"short", in4.frame(t, strangerMAC, nicMAC, "S")[:44], untouched},
		{"larger than a frame", append(udp4.frame(t, strangerMAC, nicMAC, ""), make([]byte, 1500)...), passed},
	} {
		if got := r.arrives(c.frame); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	r.must(r.DropUplink(loopback))
	if got := r.arrives(in4.frame(t, strangerMAC, nicMAC, "S")); got != untouched {
		t.Errorf("no uplink: %q", got)
	}
}

// TestUplinkJudges follows flows that are opened from outside.
func TestUplinkJudges(t *testing.T) {
	for _, f := range []flowOf{in4, in6, udp4, udp6,
		{far4, pod4, 5, 5, layers.IPProtocolICMPv4}, {peer6, pod6, 5, 5, layers.IPProtocolICMPv6}} {
		r := newUplink(t, nil)
		frame := f.frame(t, strangerMAC, nicMAC, "S")
		if got := r.arrives(frame); got != steered {
			t.Errorf("%v, unknown: %q", f, got)
		}
		k, side := f.key()
		v := xdpprog.DenyValue{Sides: 1 << side, SinceNs: uint64(nowNs(t)) - uint64(time.Second)}
		v.Slot[side^1], v.Gen[side^1] = podSlot, podGen
		write := func() {
			_, err := xdpprog.UpdateDenied(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.DenyValue{v})
			r.must(err)
		}
		write()
		if got := r.arrives(frame); got != denied {
			t.Errorf("%v, denied: %q", f, got)
		}
		if !xdpprog.LookupDenied(r.Objects, &k, &v) || v.Packets != 1 || v.Bytes != uint64(len(frame)) {
			t.Errorf("%v: counted %d packets, %d bytes", f, v.Packets, v.Bytes)
		}
		old := v.SinceNs
		v.SinceNs += uint64(2 * time.Second)
		write()
		if got := r.arrives(frame); got != denied {
			t.Errorf("%v, denied by a clock ahead of the programs': %q", f, got)
		}
		v.SinceNs -= uint64(2 * time.Minute)
		write()
		if got := r.arrives(frame); got != steered {
			t.Errorf("%v, denied long ago: %q", f, got)
		}
		v.SinceNs, v.Gen[side^1] = old, podGen-1
		write()
		if got := r.arrives(frame); got != steered {
			t.Errorf("%v, denied by older rules: %q", f, got)
		}
		r.allow(f, xdpprog.FlowValue{})
		if got := r.arrives(frame); got != passed {
			t.Errorf("%v, known: %q", f, got)
		}
	}
}

// TestUplinkReplies sees that nothing is judged that may be a reply: what comes
// to a port that the pod has sent from. The host may yet translate it back.
func TestUplinkReplies(t *testing.T) {
	for _, f := range []flowOf{in4, in6, udp4, udp6} {
		r := newUplink(t, nil)
		answer, opening := f.frame(t, strangerMAC, nicMAC, "SA"), f.frame(t, strangerMAC, nicMAC, "S")
		if got := r.arrives(answer); got != steered {
			t.Errorf("%v, nothing asked: %q", f, got)
		}
		// The pod answers from the port, and nothing may come of that.
		r.fate(xdpprog.PodIngress, f.reverse().frame(t, podMAC, hostMAC, "SA"))
		if got := r.arrives(answer); got != steered {
			t.Errorf("%v, the pod has answered: %q", f, got)
		}
		// The pod asks somebody else, as if the host translated that.
		service := flowOf{f.dst, f.src, f.dport, 7, f.proto}
		r.NoteAskedFrom(podSlot, f.dport)
		k, side := f.key()
		v := xdpprog.DenyValue{Sides: 1 << side, SinceNs: uint64(nowNs(t)) - uint64(time.Second)}
		v.Slot[side^1], v.Gen[side^1] = podSlot, podGen
		_, err := xdpprog.UpdateDenied(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.DenyValue{v})
		r.must(err)
		if got := r.arrives(answer); got != passed {
			t.Errorf("%v, may be a reply: %q", f, got)
		}
		want := passed
		if f.proto == layers.IPProtocolTCP {
			want = denied // a SYN is none
		}
		if got := r.arrives(opening); got != want {
			t.Errorf("%v, opening: %q, want %q", f, got, want)
		}
		r.ForgetAsked(podSlot)
		if got := r.arrives(answer); got != denied {
			t.Errorf("%v, another pod in the slot: %q", f, got)
		}
		r.allow(service, xdpprog.FlowValue{})
		r.must(r.NoteAsked())
		if got := r.arrives(answer); got != passed {
			t.Errorf("%v, asked in a flow of an earlier agent: %q", f, got)
		}
	}
}

// TestUplinkAlone sees that an uplink passes all when nobody serves it.
func TestUplinkAlone(t *testing.T) {
	frame := in4.frame(t, strangerMAC, nicMAC, "S")
	for _, c := range []struct {
		name string
		fail func(*rig)
	}{
		{"no heartbeat", func(r *rig) { r.Beat(0, 0) }},
		{"old heartbeat", func(r *rig) { r.Beat(0, nowNs(r.TB)-int64(2*time.Minute)) }},
		{"queue without a socket", func(r *rig) { r.must(r.PutUplink(loopback, xdpprog.Uplink{Base: 7, Room: 1500, MAC: nicMAC})) }},
		{"pod without rules", func(r *rig) {
			r.must(r.PutEndpoint(podSlot, xdpprog.Endpoint{Ifindex: loopback, MAC: podMAC, HostMAC: hostMAC}))
		}},
	} {
		r := newUplink(t, nil)
		k, side := in4.key()
		v := xdpprog.DenyValue{Sides: 1 << side, SinceNs: uint64(nowNs(t)) - uint64(time.Second)}
		v.Slot[side^1], v.Gen[side^1] = podSlot, podGen
		_, err := xdpprog.UpdateDenied(r.Objects, []xdpprog.FlowKey{k}, []xdpprog.DenyValue{v})
		r.must(err)
		c.fail(r)
		if got := r.arrives(frame); got != passed {
			t.Errorf("%s: %q", c.name, got)
		}
	}
	// The socket is gone, the heartbeat still fresh.
	r := newUplink(t, nil)
	r.must(r.PutUplink(loopback, xdpprog.Uplink{Base: 9, Queues: 1, Room: 1500, MAC: nicMAC}))
	if ret, _ := r.run(xdpprog.UplinkXDP, frame); ret != 2 {
		t.Errorf("no socket: verdict %d, want to pass", ret)
	}
}

// TestUplinkInspect sees what is judged early when no caches are kept, and that
// no more is judged than the pod's budget.
func TestUplinkInspect(t *testing.T) {
	r := newUplink(t, func(c *xdpprog.Config) { c.Offload = false })
	for f, want := range map[flowOf]string{in4: steered, udp4: passed} {
		if got := r.arrives(f.frame(t, strangerMAC, nicMAC, "S")); got != want {
			t.Errorf("%v: %q, want %q", f, got, want)
		}
	}
	r = newUplink(t, func(c *xdpprog.Config) { c.MissRate, c.MissBurst = 1, 2 })
	const packets = 50 // the budget has one a second, after the first two
	dropped := 0
	for i := range packets {
		switch got := r.arrives(in4.frame(t, strangerMAC, nicMAC, "S")); {
		case got == "drop" && i >= 2:
			dropped++
		case got != steered:
			t.Errorf("packet %d: %q", i, got)
		}
	}
	if dropped == 0 {
		t.Errorf("all of %d judged", packets)
	}
}

// TestUplinkResume sees a frame come back from the worker.
func TestUplinkResume(t *testing.T) {
	r := newUplink(t, nil)
	frame := in4.frame(t, strangerMAC, nicMAC, "S")
	tagged := slices.Clone(frame)
	xdpprog.PutTag(tagged, xdpprog.VerbResumeUplink, 0, loopback)
	fate, down := r.fateOf(xdpprog.PortIngress, tagged)
	if fate != "uplink-resumed" || !bytes.Equal(down, frame) {
		t.Errorf("%q, frame\n%x, want\n%x", fate, down[:20], frame[:20])
	}
	xdpprog.PutTag(tagged, xdpprog.VerbResumeUplink, 0, peerLink)
	if got := r.fate(xdpprog.PortIngress, tagged); got != "drop bad-tag" {
		t.Errorf("to a link that is no uplink: %q", got)
	}
}

// TestPodAddrs sees addresses move from slot to slot.
func TestPodAddrs(t *testing.T) {
	r := newUplink(t, nil)
	frame := in4.frame(t, strangerMAC, nicMAC, "S")
	r.must(r.SetPodAddrs(peerSlot, []xdpprog.Addr{addr(pod4)})) // the successor comes first
	r.must(r.SetPodAddrs(podSlot, nil))
	if got := r.arrives(frame); got != steered {
		t.Errorf("moved: %q", got)
	}
	r.must(r.SetPodAddrs(peerSlot, nil))
	if got := r.arrives(frame); got != untouched {
		t.Errorf("no pod's: %q", got)
	}
}

// TestUplinkAsked sees which ports are noted of flows that no worker sees.
func TestUplinkAsked(t *testing.T) {
	answer := udp4.frame(t, strangerMAC, nicMAC, "")
	ask := udp4.reverse()
	r := newUplink(t, nil)
	key := xdpprog.AdmitKey{Src: addr(ask.src), Dst: addr(ask.dst), DPort: ask.dport, Proto: uint8(ask.proto), Hook: uint8(xdpprog.HookFromPod)}
	_, err := xdpprog.UpdateAdmits(r.Objects, []xdpprog.AdmitKey{key}, []xdpprog.AdmitValue{{Slot: [2]uint32{podSlot, 0}, Gen: [2]uint32{podGen, 0}}})
	r.must(err)
	other := ask
	other.sport = 54
	if verdict, _ := r.run(xdpprog.PodIngress, other.frame(t, podMAC, hostMAC, "")); verdict != next {
		t.Errorf("not admitted: verdict %d", verdict)
	}
	if got := r.arrives(answer); got != steered {
		t.Errorf("admitted from another port: %q", got)
	}
	other = flowOf{far4, pod4, 1001, 54, layers.IPProtocolUDP}
	if got := r.arrives(other.frame(t, strangerMAC, nicMAC, "")); got != passed {
		t.Errorf("admitted: %q", got)
	}

	r = newUplink(t, func(c *xdpprog.Config) { c.FailOpen = true })
	r.Beat(0, 0)
	r.run(xdpprog.PodIngress, ask.frame(t, podMAC, hostMAC, ""))
	r.Beat(0, nowNs(t))
	if got := r.arrives(answer); got != passed {
		t.Errorf("let through without a worker: %q", got)
	}
}
