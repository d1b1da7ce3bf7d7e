package flow_test

import (
	"testing"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// fill makes a full table of flows, put into shape by set.
func fill(t *testing.T, capacity int, proto packet.Proto, set func(i int, tab *flow.Table, r flow.Ref)) *flow.Table {
	t.Helper()
	tab := newTable(t, capacity)
	for i, k := range keys(capacity, proto) {
		set(i, tab, insert(t, tab, k, 100*second))
	}
	return tab
}

func establish(tab *flow.Table, r flow.Ref, nowNs int64) {
	tab.Track(r, packet.SideA, syn, 60, nowNs)
	tab.Track(r, packet.SideB, synAck, 60, nowNs)
	tab.Track(r, packet.SideA, ack, 60, nowNs)
}

func newcomer(tab *flow.Table, nowNs int64) (flow.Entry, bool) {
	var evicted flow.Entry
	k, _ := packet.MakeKey(packet.AddrV4(0x0b000001), packet.AddrV4(0x0b000002), 5, 6, packet.ProtoTCP)
	_, ok := tab.Insert(&k, tab.Hash(&k), nowNs, &evicted)
	return evicted, ok
}

// A table of 8 flows is one search window: every flow is a candidate.
func TestEviction(t *testing.T) {
	now := 101 * second
	for name, c := range map[string]struct {
		proto packet.Proto
		set   func(i int, tab *flow.Table, r flow.Ref)
		want  flow.State // of the evicted flow; Free: refused
		port  uint16     // of the evicted flow, if it matters
	}{
		"established stay": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			establish(tab, r, now)
		}, flow.Free, 0},
		"expired even if established": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			establish(tab, r, now)
			if i == 3 {
				tab.At(r).LastSeenNs = now - 7*3600*second
			}
		}, flow.Established, 1027},
		"half-open gives way": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			establish(tab, r, now)
			if i == 5 {
				tab.At(r).State = flow.SynSent
			}
		}, flow.SynSent, 1029},
		"oldest half-open": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, syn, 60, now-int64(i+1)*second)
		}, flow.SynSent, 1031},
		"closing before half-open": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, syn, 60, now)
			if i == 2 {
				establish(tab, r, now)
				tab.Track(r, packet.SideA, fin, 60, now)
			}
		}, flow.FinWait, 1026},
		"expired before closing": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, rst, 60, now)
			if i == 6 {
				tab.At(r).State = flow.SynSent
				tab.At(r).LastSeenNs = now - 31*second
			}
		}, flow.SynSent, 1030},
		"mid-stream unanswered": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, ack, 60, now)
		}, flow.Loose, 0},
		"offloaded TCP stays whatever it looks like": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, syn, 60, 1)
			tab.At(r).Flags |= flow.Offloaded
		}, flow.Free, 0},
		"offloaded and closed goes": {packet.ProtoTCP, func(i int, tab *flow.Table, r flow.Ref) {
			establish(tab, r, now)
			tab.At(r).Flags |= flow.Offloaded
			if i == 4 {
				tab.Track(r, packet.SideA, rst, 60, now)
			}
		}, flow.Closed, 1028},
		"offloaded UDP goes last": {packet.ProtoUDP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.At(r).LastSeenNs = now
			if i != 1 {
				tab.At(r).Flags |= flow.Offloaded
				tab.At(r).LastSeenNs = 1
			}
		}, flow.Unreplied, 1025},
		"UDP stream stays": {packet.ProtoUDP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, 0, 60, now)
			tab.Track(r, packet.SideB, 0, 60, now+second)
		}, flow.Free, 0},
		"offloaded UDP stream stays": {packet.ProtoUDP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideA, 0, 60, now)
			tab.Track(r, packet.SideB, 0, 60, now+second)
			tab.At(r).Flags |= flow.Offloaded
		}, flow.Free, 0},
		"oldest UDP answer gives way": {packet.ProtoUDP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideB, 0, 60, now-int64(i))
			tab.At(r).CreatedNs = now - 10
		}, flow.Established, 1031},
		"unanswered before answered": {packet.ProtoUDP, func(i int, tab *flow.Table, r flow.Ref) {
			if i != 3 {
				tab.Track(r, packet.SideB, 0, 60, now-int64(i))
			}
		}, flow.Unreplied, 1027},
		"replied ICMP gives way": {packet.ProtoICMP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideB, 0, 60, now-int64(i))
		}, flow.Established, 1031},
		"replied SCTP stays": {packet.ProtoSCTP, func(i int, tab *flow.Table, r flow.Ref) {
			tab.Track(r, packet.SideB, 0, 60, now)
		}, flow.Free, 0},
	} {
		t.Run(name, func(t *testing.T) {
			tab := fill(t, 8, c.proto, c.set)
			evicted, ok := newcomer(tab, now)
			if ok != (c.want != flow.Free) || evicted.State != c.want {
				t.Fatalf("inserted %v, evicted %v, want %v", ok, evicted.State, c.want)
			}
			if tab.Len() != 8 {
				t.Errorf("%d flows, want 8", tab.Len())
			}
			if ok && tab.Find(&evicted.Key) != flow.NoRef {
				t.Error("the evicted flow is still there")
			}
			if c.port != 0 && evicted.Key.APort != c.port {
				t.Errorf("evicted the flow of port %d, want %d", evicted.Key.APort, c.port)
			}
		})
	}
}

// A SYN flood into a table full of established flows changes nothing for them,
// and one into a half-full table leaves all established flows alone.
func TestFloodSparesEstablished(t *testing.T) {
	tab := newTable(t, 4096)
	now := 100 * second
	good := keys(2048, packet.ProtoTCP)
	for _, k := range good {
		establish(tab, insert(t, tab, k, now), now)
	}
	refused := 0
	var evicted flow.Entry
	for i := range uint32(100_000) {
		k, _ := packet.MakeKey(packet.AddrV4(0x0c000000|i), packet.AddrV4(0x0a100001), 1, 80, packet.ProtoTCP)
		r, ok := tab.Insert(&k, tab.Hash(&k), now+int64(i), &evicted)
		if !ok {
			refused++
			continue
		}
		tab.Track(r, packet.SideB, syn, 60, now+int64(i))
		if evicted.State == flow.Established {
			t.Fatalf("flow %d pushed an established one out", i)
		}
	}
	for i := range good {
		if tab.Find(&good[i]) == flow.NoRef {
			t.Fatalf("established flow %d is gone", i)
		}
	}
	if refused > 100 {
		t.Errorf("%d of 100000 refused though half of the table may give way", refused)
	}
}

func TestSweep(t *testing.T) {
	tab := newTable(t, 1000)
	ks := keys(600, packet.ProtoUDP)
	for i, k := range ks {
		insert(t, tab, k, int64(i)*second)
	}
	out := make([]flow.Ref, 1000)
	if n := tab.Sweep(30*second-1, 1000, out); n != 0 {
		t.Fatalf("%d flows expired early", n)
	}
	// At 129 s, flows 0 to 99 have been idle for 30 s.
	seen := map[flow.Ref]bool{}
	for range 600 / 50 {
		n := tab.Sweep(129*second, 50, out)
		for _, r := range out[:n] {
			if seen[r] {
				t.Fatalf("flow %d was reported twice in one round", r)
			}
			seen[r] = true
		}
	}
	if len(seen) != 100 {
		t.Fatalf("%d flows expired, want 100", len(seen))
	}
	// A full out stops the scan where the next call goes on.
	total := 0
	for range 30 {
		n := tab.Sweep(129*second, 1000, out[:7])
		if n > 7 {
			t.Fatalf("%d refs written into 7", n)
		}
		for _, r := range out[:n] {
			tab.Remove(r)
		}
		total += n
	}
	if total != 100 || tab.Len() != 500 {
		t.Errorf("removed %d, %d left, want 100 and 500", total, tab.Len())
	}
	for n := 1; n > 0; {
		n = tab.Sweep(10_000*second, 1000, out)
		for _, r := range out[:n] {
			tab.Remove(r)
		}
	}
	if tab.Len() != 0 {
		t.Errorf("%d flows are left", tab.Len())
	}
	insert(t, tab, ks[0], 1)
	if n := tab.Sweep(31*second, 1000, out); n != 1 {
		t.Errorf("%d expired after a refill, want 1", n)
	}
}
