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

// newPodLink makes the loopback link, by which single packets come, that of a
// pod whose packets all go to the workers, with a socket on it.
func newPodLink(t *testing.T, change func(*xdpprog.Config)) *rig {
	t.Helper()
	r := newRig(t, func(c *xdpprog.Config) {
		c.Offload = false
		if change != nil {
			change(c)
		}
	})
	r.must(r.SetPodSocket(podSlot, r.socket()))
	return r
}

// TestPodLink sees which packets take the shorter way, with the tag that divert
// would have given to them, and that all others are left alone.
func TestPodLink(t *testing.T) {
	r := newPodLink(t, nil)
	out4 := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	options := ip4(pod4, far4, layers.IPProtocolUDP)
	options.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	fragment := ip4(pod4, far4, layers.IPProtocolUDP)
	fragment.Flags = layers.IPv4MoreFragments
	ether4 := eth(podMAC, hostMAC, layers.EthernetTypeIPv4)
	for _, c := range []struct {
		name  string
		frame []byte
		taken bool
	}{
		{"TCP", out4.frame(t, podMAC, hostMAC, "S"), true},
		{"UDP", flowOf{pod4, far4, 1000, 53, layers.IPProtocolUDP}.frame(t, podMAC, hostMAC, ""), true},
		{"TCP over IPv6", flowOf{pod6, peer6, 1000, 80, layers.IPProtocolTCP}.frame(t, podMAC, hostMAC, "A"), true},
		{"UDP over IPv6", flowOf{pod6, peer6, 1000, 53, layers.IPProtocolUDP}.frame(t, podMAC, hostMAC, ""), true},
		{"another's address", out4.reverse().frame(t, podMAC, hostMAC, "S"), true}, // a worker says so
		{"another's MAC", out4.frame(t, strangerMAC, hostMAC, "S"), false},
		{"ping", flowOf{pod4, far4, 5, 5, layers.IPProtocolICMPv4}.frame(t, podMAC, hostMAC, ""), false},
		{"ping over IPv6", flowOf{pod6, peer6, 5, 5, layers.IPProtocolICMPv6}.frame(t, podMAC, hostMAC, ""), false},
		{"ARP", arp(t, podMAC, podMAC, pod4), false},
		{"IPv4 options", build(t, ether4, options, gopacket.Payload(make([]byte, 40))), false},
		{"fragment", build(t, ether4, fragment, gopacket.Payload(make([]byte, 40))), false},
		{"no TCP header", out4.frame(t, podMAC, hostMAC, "S")[:44], false},
		{"no IP header", out4.frame(t, podMAC, hostMAC, "S")[:30], false},
		{"SCTP", build(t, ether4, ip4(pod4, far4, layers.IPProtocolSCTP), gopacket.Payload(make([]byte, 40))), false},
	} {
		_, was := r.counters()
		ret, out := r.run(xdpprog.PodXDP, c.frame)
		_, now := r.counters()
		counted := now[xdpprog.CountSteered] - was[xdpprog.CountSteered]
		if !c.taken {
			if ret != xdpPass || counted != 0 || !bytes.Equal(out, c.frame) {
				t.Errorf("%s: verdict %d, counted %d, changed %t; want it left alone", c.name, ret, counted, !bytes.Equal(out, c.frame))
			}
			continue
		}
		hook, worker, slot, ok := xdpprog.ParseTag(out)
		if ret != xdpRedirect || counted != 1 || !ok || hook != 0 || worker != 0 || slot != podSlot {
			t.Errorf("%s: verdict %d, counted %d, tag %d %d %d %t", c.name, ret, counted, hook, worker, slot, ok)
		}
		if !bytes.Equal(out[6:12], c.frame[:6]) || !bytes.Equal(out[12:], c.frame[12:]) {
			t.Errorf("%s: got %x of %x", c.name, out, c.frame)
		}
	}
}

// TestPodLinkPasses takes away, one by one, what the shorter way needs.
func TestPodLinkPasses(t *testing.T) {
	f := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	for name, c := range map[string]struct {
		config func(*xdpprog.Config)
		change func(*rig)
	}{
		"offload":         {config: func(c *xdpprog.Config) { c.Offload = true }},
		"no such link":    {change: func(r *rig) { r.must(r.UnbindLink(loopback)) }},
		"worker is away":  {change: func(r *rig) { r.Beat(0, nowNs(r.TB)-int64(time.Hour)) }},
		"no socket there": {change: func(r *rig) { r.must(r.BindLink(loopback, peerSlot)) }},
	} {
		r := newPodLink(t, c.config)
		if c.change != nil {
			c.change(r)
		}
		frame := f.frame(t, podMAC, hostMAC, "S")
		if ret, out := r.run(xdpprog.PodXDP, slices.Clone(frame)); ret != xdpPass || !bytes.Equal(out, frame) {
			t.Errorf("%s: verdict %d, changed %t; want it left alone", name, ret, !bytes.Equal(out, frame))
		}
	}
}

// TestPodLinkOwner sees that a flow of another worker than the socket's goes
// by the steering port.
func TestPodLinkOwner(t *testing.T) {
	const workers = 4
	r := newPodLink(t, func(c *xdpprog.Config) { c.Workers = workers })
	taken := 0
	for port := range uint16(400) {
		f := flowOf{pod4, far4, 1000 + port, 80, layers.IPProtocolTCP}
		key, _ := f.key()
		owner := xdpprog.Owner(&key, r.Seed(), workers)
		mine := owner == podSlot%workers
		ret, _ := r.run(xdpprog.PodXDP, f.frame(t, podMAC, hostMAC, "S"))
		if (ret == xdpRedirect) != mine {
			t.Fatalf("port %d: verdict %d, owner %d", f.sport, ret, owner)
		}
		if mine {
			taken++
		}
	}
	if taken < 50 || taken > 150 {
		t.Errorf("%d of 400 flows are the socket's: want about 100", taken)
	}
}
