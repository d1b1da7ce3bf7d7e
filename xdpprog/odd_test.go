package xdpprog_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// TestOddOfKnownFlow sees that the cache doesn't speak for packets that only seem to be
// of a flow that it has: those are a worker's.
func TestOddOfKnownFlow(t *testing.T) {
	r := newRig(t, nil)
	stream := flowOf{pod4, far4, 1000, 80, layers.IPProtocolTCP}
	ping4, ping6 := flowOf{pod4, far4, 5, 5, layers.IPProtocolICMPv4}, flowOf{pod6, peer6, 5, 5, layers.IPProtocolICMPv6}
	short := stream.frame(t, podMAC, hostMAC, "A")
	short[14+20+12] = 4 << 4 // words of header
	code := func(f flowOf, at int) []byte {
		frame := f.frame(t, podMAC, hostMAC, "S")
		frame[at+1] = 1
		return frame
	}
	as6 := func(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
	ip := ip6(as6(pod4), as6(far4), layers.IPProtocolTCP)
	mapped := build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv6), ip, gopacket.Payload(stream.frame(t, podMAC, hostMAC, "A")[34:]))
	for _, c := range []struct {
		name  string
		f     flowOf
		frame []byte
	}{
		{"TCP header too short", stream, short},
		{"IPv4 addresses in IPv6", stream, mapped},
		{"echo with a code", ping4, code(ping4, 14+20)},
		{"ICMPv6 echo with a code", ping6, code(ping6, 14+40)},
	} {
		r.allow(c.f, xdpprog.FlowValue{})
		flags := "A"
		if c.f.proto != layers.IPProtocolTCP {
			flags = "S"
		}
		if got := r.fate(xdpprog.PodIngress, c.f.frame(t, podMAC, hostMAC, flags)); got != "hit" {
			t.Errorf("%s: as it should be: %q", c.name, got)
		}
		if got := r.fate(xdpprog.PodIngress, c.frame); got != "steered" {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
