package xdpprog_test

import (
	"encoding/binary"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// fragment returns one fragment of a datagram of the flow: the bytes of its
// payload from offset on, the first one with the transport header.
func fragment(t *testing.T, f flowOf, id uint32, offset uint16, more bool) []byte {
	t.Helper()
	body := make([]byte, 64)
	if offset == 0 {
		binary.BigEndian.PutUint16(body, f.sport)
		binary.BigEndian.PutUint16(body[2:], f.dport)
	}
	if f.src.Is4() {
		ip := ip4(f.src, f.dst, f.proto)
		ip.Id, ip.FragOffset = uint16(id), offset/8
		if more {
			ip.Flags = layers.IPv4MoreFragments
		}
		return build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv4), ip, gopacket.Payload(body))
	}
	head := make([]byte, 8)
	head[0] = byte(f.proto)
	binary.BigEndian.PutUint16(head[2:], offset)
	if more {
		head[3] |= 1
	}
	binary.BigEndian.PutUint32(head[4:], id)
	return build(t, eth(podMAC, hostMAC, layers.EthernetTypeIPv6), ip6(f.src, f.dst, layers.IPProtocolIPv6Fragment),
		gopacket.Payload(append(head, body...)))
}

// TestFragments sees that fragments follow the flow of their first one, and
// that one without a first goes to the worker.
func TestFragments(t *testing.T) {
	for _, f := range []flowOf{
		{pod4, far4, 1000, 53, layers.IPProtocolUDP},
		{pod6, peer6, 1000, 53, layers.IPProtocolUDP},
	} {
		r := newRig(t, nil)
		r.allow(f, xdpprog.FlowValue{})
		tcp := flowOf{f.src, f.dst, f.sport, f.dport, layers.IPProtocolTCP}
		r.allow(tcp, xdpprog.FlowValue{})
		for _, step := range []struct {
			name  string
			frame []byte
			want  string
		}{
			{"later one before the first", fragment(t, f, 1, 64, true), "steered"},
			{"first", fragment(t, f, 1, 0, true), "hit"},
			{"later", fragment(t, f, 1, 64, true), "hit"},
			{"last", fragment(t, f, 1, 128, false), "hit"},
			{"another datagram's", fragment(t, f, 2, 64, true), "steered"},
			{"TCP, first", fragment(t, tcp, 3, 0, true), "steered"},
			{"TCP, later", fragment(t, tcp, 3, 64, false), "steered"},
		} {
			if got := r.fate(xdpprog.PodIngress, step.frame); got != step.want {
				t.Errorf("%v, %s: got %q, want %q", f.src, step.name, got, step.want)
			}
		}
	}
}

// TestFragmentsOfOneFlowMeet sees that all fragments of a datagram reach the
// worker that owns its flow, though only the first has ports.
func TestFragmentsOfOneFlowMeet(t *testing.T) {
	r := newRig(t, func(c *xdpprog.Config) { c.Workers = 8 })
	for port := range uint16(32) {
		f := flowOf{pod4, far4, 1000 + port, 53, layers.IPProtocolUDP}
		k, _ := f.key()
		want := xdpprog.Owner(&k, r.Seed(), 8)
		for _, frame := range [][]byte{fragment(t, f, uint32(port), 0, true), fragment(t, f, uint32(port), 64, false)} {
			fate, out := r.fateOf(xdpprog.PodIngress, frame)
			_, worker, _, ok := xdpprog.ParseTag(out)
			if fate != "steered" || !ok || uint32(worker) != want {
				t.Fatalf("port %d: %s to worker %d (%v), want %d", f.sport, fate, worker, ok, want)
			}
		}
	}
}

// TestQuotedFragment sees that an ICMPv6 error goes to the worker of the flow whose
// datagram was too big, though what it quotes is a fragment or has other headers.
func TestQuotedFragment(t *testing.T) {
	const workers = 8
	r := newRig(t, func(c *xdpprog.Config) { c.Workers = workers })
	for i := range 50 {
		f := flowOf{pod6, peer6, uint16(2000 + i), 9, layers.IPProtocolUDP}
		k, _ := f.key()
		for name, more := range map[string][]byte{
			"plain":                         {byte(layers.IPProtocolUDP)},
			"fragment":                      {44, 17, 0, 0, 1, 0, 0, 0, byte(i)},
			"fragment behind other headers": {60, 60, 0, 1, 4, 0, 0, 0, 0, 44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, byte(i)},
		} {
			quoted := append([]byte{0x60, 0, 0, 0, 4, 208, more[0], 64}, append(f.src.AsSlice(), f.dst.AsSlice()...)...)
			quoted = append(quoted, more[1:]...)
			quoted = binary.BigEndian.AppendUint16(quoted, f.sport)
			quoted = binary.BigEndian.AppendUint16(quoted, f.dport)
			quoted = append(quoted, make([]byte, 64)...)
			tooBig := append([]byte{2, 0, 0, 0, 0, 0, 5, 120}, quoted...)
			ret, out := r.run(xdpprog.PodEgress, build(t, eth(hostMAC, podMAC, layers.EthernetTypeIPv6), ip6(peer6, pod6, layers.IPProtocolICMPv6), gopacket.Payload(tooBig)))
			if want := xdpprog.Owner(&k, r.Seed(), workers); ret != redirect || uint32(out[1]) != want {
				t.Errorf("%s, port %d: verdict %d, worker %d, want %d", name, f.sport, ret, out[1], want)
			}
		}
	}
}
