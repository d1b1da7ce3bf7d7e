package xdpprog_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// fate is what became of a frame: "next", "steered", "drop <reason>" and so on,
// found by what the counters say.
func (r *rig) fate(p xdpprog.Point, frame []byte) string {
	r.Helper()
	f, _ := r.fateOf(p, frame)
	return f
}

func (r *rig) fateOf(p xdpprog.Point, frame []byte) (string, []byte) {
	r.Helper()
	return r.fateCtx(p, frame, nil)
}

func (r *rig) fateCtx(p xdpprog.Point, frame []byte, ctx *skbContext) (string, []byte) {
	r.Helper()
	drops, counts := r.counters()
	ret, out := r.runCtx(p, frame, ctx)
	dropsNow, countsNow := r.counters()
	var what []string
	for i := range drops {
		if dropsNow[i] != drops[i] {
			what = append(what, "drop "+stat.Reason(i).String())
		}
	}
	for i := range counts {
		if countsNow[i] != counts[i] {
			what = append(what, xdpprog.Counter(i).String())
		}
	}
	if len(what) != 1 {
		r.Fatalf("%s: verdict %d counted as %v, want exactly one count", p, ret, what)
	}
	want := map[string]uint32{"hit": next, "neighbour": next, "fail-open": next,
		"steered": redirect, "shortcut": redirect, "resumed": redirect, "delivered": redirect, "uplink-resumed": redirect}
	verdict, known := want[what[0]]
	if !known {
		verdict = shot
	}
	if ret != verdict {
		r.Errorf("%s: %s with verdict %d, want %d", p, what[0], ret, verdict)
	}
	return what[0], out
}

func (r *rig) counters() (d [xdpprog.NumDropReasons]uint64, c [xdpprog.NumCounters]uint64) {
	r.Helper()
	d, err := r.Drops()
	r.must(err)
	c, err = r.Counters()
	r.must(err)
	return d, c
}

func TestDivertLinkLayer(t *testing.T) {
	r := newRig(t, nil)
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	ok := f.frame(t, podMAC, hostMAC, "S")
	in := f.reverse().frame(t, hostMAC, podMAC, "S")
	lldp := build(t, eth(podMAC, hostMAC, layers.EthernetTypeLinkLayerDiscovery), gopacket.Payload(make([]byte, 60)))
	vlan := build(t, eth(podMAC, hostMAC, layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4},
		ip4(pod4, far4, layers.IPProtocolUDP), gopacket.Payload(make([]byte, 40)))
	qinq := slices.Clone(vlan)
	qinq[12], qinq[13] = 0x88, 0xa8
	multicast := f.reverse().frame(t, hostMAC, [6]byte{1, 0, 0x5e, 0, 0, 1}, "S")
	for _, c := range []struct {
		name  string
		at    xdpprog.Point
		frame []byte
		want  string
	}{
		{"from pod", xdpprog.PodIngress, ok, "steered"},
		{"to pod", xdpprog.PodEgress, in, "steered"},
		{"to pod, multicast", xdpprog.PodEgress, multicast, "steered"},
		{"spoofed MAC", xdpprog.PodIngress, f.frame(t, strangerMAC, hostMAC, "S"), "drop spoofed-mac"},
		{"misdirected", xdpprog.PodEgress, f.reverse().frame(t, hostMAC, strangerMAC, "S"), "drop misdirected"},
		{"any MAC may send to the pod", xdpprog.PodEgress, f.reverse().frame(t, strangerMAC, podMAC, "S"), "steered"},
		{"VLAN", xdpprog.PodIngress, vlan, "drop vlan"},
		{"QinQ", xdpprog.PodIngress, qinq, "drop vlan"},
		{"unknown ethertype", xdpprog.PodIngress, lldp, "drop unknown-ethertype"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := r.fate(c.at, c.frame); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("unknown endpoint", func(t *testing.T) {
		r.must(r.UnbindLink(loopback))
		for _, at := range []xdpprog.Point{xdpprog.PodIngress, xdpprog.PodEgress} {
			if got := r.fate(at, ok); got != "drop unknown-endpoint" {
				t.Errorf("%s: got %q", at, got)
			}
		}
	})
}

// TestDivertOdd sees that whatever isn't plain goes to a worker, whose parser
// has the last word, even if the flow is in the cache.
func TestDivertOdd(t *testing.T) {
	r := newRig(t, nil)
	udp4 := flowOf{pod4, far4, 1000, 53, layers.IPProtocolUDP}
	udp6 := flowOf{pod6, peer6, 1000, 53, layers.IPProtocolUDP}
	r.allow(udp4, xdpprog.FlowValue{})
	r.allow(udp6, xdpprog.FlowValue{})
	plain4, plain6 := udp4.frame(t, podMAC, hostMAC, ""), udp6.frame(t, podMAC, hostMAC, "")
	options := build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv4), withOptions(ip4(pod4, far4, layers.IPProtocolUDP)),
		gopacket.Payload(plain4[34:]))
	hop := build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv6), ip6(pod6, peer6, layers.IPProtocolIPv6Destination),
		gopacket.Payload(append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, plain6[54:]...)))
	mapped := flowOf{netip.MustParseAddr("::ffff:10.0.0.10"), peer6, 1000, 53, layers.IPProtocolUDP}
	shortL4 := slices.Clone(plain4[:14+20+3])
	version := slices.Clone(plain4)
	version[14] = 0x55
	for _, c := range []struct {
		name  string
		frame []byte
		want  string
	}{
		{"plain IPv4", plain4, "hit"},
		{"plain IPv6", plain6, "hit"},
		{"IPv4 options", options, "steered"},
		{"IPv6 destination options", hop, "steered"},
		{"v4-mapped IPv6", mappedFrame(t, mapped), "steered"},
		{"transport header cut", shortL4, "steered"},
		{"wrong version", version, "steered"},
		{"header chain too long", chain(t, 9), "steered"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := r.fate(xdpprog.PodIngress, c.frame); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func withOptions(ip *layers.IPv4) *layers.IPv4 {
	ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
	return ip
}

// mappedFrame writes v4-mapped addresses into an IPv6 header, which gopacket
// would turn into IPv4 ones.
func mappedFrame(t *testing.T, f flowOf) []byte {
	frame := flowOf{pod6, f.dst, f.sport, f.dport, f.proto}.frame(t, podMAC, hostMAC, "")
	src := f.src.As16()
	copy(frame[14+8:], src[:])
	return frame
}

// chain is an IPv6 packet with n destination options headers.
func chain(t *testing.T, n int) []byte {
	var ext []byte
	for i := range n {
		following := byte(60)
		if i == n-1 {
			following = 17
		}
		ext = append(ext, following, 0, 1, 4, 0, 0, 0, 0)
	}
	return build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv6), ip6(pod6, peer6, layers.IPProtocolIPv6Destination),
		gopacket.Payload(append(ext, make([]byte, 40)...)))
}

// TestOlderKernel loads the programs as a kernel before 6.2 takes them, or one without
// types of its own: a known flow goes its way.
func TestOlderKernel(t *testing.T) {
	t.Cleanup(xdpprog.WithoutKernCtx())
	r := newRig(t, nil)
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	r.allow(f, xdpprog.FlowValue{})
	if got := r.fate(xdpprog.PodIngress, f.frame(t, podMAC, hostMAC, "S")); got != "hit" {
		t.Errorf("got %q", got)
	}
}
