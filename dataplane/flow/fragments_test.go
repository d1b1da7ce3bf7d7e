package flow_test

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

func newFragments(t *testing.T, capacity int) *flow.Fragments {
	t.Helper()
	cfg := flow.DefaultFragments()
	cfg.Capacity = capacity
	f, err := flow.NewFragments(cfg, hasher)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func first(id uint32) packet.Header {
	return packet.Header{
		Src: packet.AddrV4(1), Dst: packet.AddrV4(2), SrcPort: 53, DstPort: uint16(id) + 1000,
		EtherType: packet.EtherTypeIPv4, Proto: packet.ProtoUDP,
		Frag: packet.FragFirst, FragID: id, FragHeaders: 8,
	}
}

func later(id uint32) packet.Header {
	h := first(id)
	h.SrcPort, h.DstPort, h.FragHeaders = 0, 0, 0
	h.Frag, h.FragOffset = packet.FragLater, 1480
	return h
}

func TestFragments(t *testing.T) {
	f := newFragments(t, 64)
	h := later(7)
	if r := f.Resolve(&h, second); r != stat.BadFragment {
		t.Fatalf("unknown datagram: %v", r)
	}
	one := first(7)
	f.Learn(&one, second)
	h = later(7)
	if r := f.Resolve(&h, 31*second-1); r != stat.OK || h.SrcPort != 53 || h.DstPort != 1007 {
		t.Fatalf("known datagram: %v, ports %d %d", r, h.SrcPort, h.DstPort)
	}
	if k, side := h.Key(); k != must(one.Key()) || side != packet.SideA {
		t.Errorf("key %v, want the first fragment's", k)
	}
	h = later(7)
	if r := f.Resolve(&h, 31*second); r != stat.BadFragment {
		t.Errorf("after the timeout: %v", r)
	}
	for name, change := range map[string]func(*packet.Header){
		"other id":       func(h *packet.Header) { h.FragID++ },
		"other source":   func(h *packet.Header) { h.Src = packet.AddrV4(9) },
		"other target":   func(h *packet.Header) { h.Dst = packet.AddrV4(9) },
		"other protocol": func(h *packet.Header) { h.Proto = packet.ProtoTCP },
		"reversed":       func(h *packet.Header) { h.Src, h.Dst = h.Dst, h.Src },
	} {
		h = later(7)
		change(&h)
		if r := f.Resolve(&h, 2*second); r != stat.BadFragment {
			t.Errorf("%s: %v", name, r)
		}
	}
	f.Forget(&one)
	h = later(7)
	if r := f.Resolve(&h, 2*second); r != stat.BadFragment {
		t.Errorf("forgotten datagram: %v", r)
	}
	f.Forget(&one)
}

func must(k packet.Key, _ packet.Side) packet.Key { return k }

// In IPv6 the first fragment knows what follows its extension headers, the
// later ones name only the first of these headers.
func TestFragmentsIPv6(t *testing.T) {
	f := newFragments(t, 64)
	one := first(1)
	one.EtherType, one.FragHeaders = packet.EtherTypeIPv6, 8+24
	f.Learn(&one, second)
	h := later(1)
	h.EtherType, h.Proto = packet.EtherTypeIPv6, 60
	if r := f.Resolve(&h, second); r != stat.OK || h.Proto != packet.ProtoUDP || h.DstPort != 1001 {
		t.Errorf("later fragment: %v, proto %d, port %d", r, h.Proto, h.DstPort)
	}
	h = later(1)
	h.EtherType, h.FragOffset = packet.EtherTypeIPv6, 24
	if r := f.Resolve(&h, second); r != stat.BadFragment {
		t.Errorf("fragment over the transport header: %v", r)
	}
}

// A set that is full loses its oldest datagram, and only that.
func TestFragmentsReplaceOldest(t *testing.T) {
	f := newFragments(t, 8)
	for id := range uint32(9) {
		h := first(id)
		f.Learn(&h, second+int64(id))
	}
	for id := range uint32(9) {
		h := later(id)
		want := stat.OK
		if id == 0 {
			want = stat.BadFragment
		}
		if r := f.Resolve(&h, 2*second); r != want {
			t.Errorf("datagram %d: %v, want %v", id, r, want)
		}
	}
	again := first(1)
	again.DstPort = 9
	f.Learn(&again, 2*second)
	h := later(1)
	if r := f.Resolve(&h, 2*second); r != stat.OK || h.DstPort != 9 {
		t.Errorf("datagram learned anew: %v, port %d", r, h.DstPort)
	}
}

func TestFragmentConfig(t *testing.T) {
	for _, cfg := range []flow.FragmentConfig{{}, {Capacity: 1}, {TimeoutNs: 1}, {Capacity: -1, TimeoutNs: 1}} {
		if _, err := flow.NewFragments(cfg, hasher); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}
