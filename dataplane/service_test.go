package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// Pod a may reach what has identity 0, on TCP 8080 only: good addresses. Pod b
// is not among them.
var (
	vip  = netip.MustParseAddr("10.96.0.1")
	good = []netip.Addr{netip.MustParseAddr("10.0.9.1"), netip.MustParseAddr("10.0.9.2")}
	bad  = netip.MustParseAddr("10.0.9.3")
)

func serviceWorker(t testing.TB, backends ...netip.AddrPort) *testWorker {
	w := newTestWorker(t)
	set := testSet(2, web...)
	set.Programs = append(set.Programs, rule.Program{Tiers: []rule.Tier{{
		Name:    "networkpolicy",
		Rules:   []rule.Rule{{Action: rule.Allow, Peers: []rule.PeerID{0}, Ports: []rule.PortRange{{Proto: 6, From: 8080, To: 8080}}, Cause: 1}},
		Default: rule.Deny, DefaultCause: 2,
	}}})
	set.Endpoints[0].Egress = 2
	set.Addresses = []rule.Address{{Addr: good[0]}, {Addr: good[1]}}
	w.publish(set)
	snap := *w.snap
	snap.services = newServiceTable(7, []Service{{Addr: vip, Proto: packet.ProtoTCP, Port: 80, Backends: backends}})
	w.snap = &snap
	return w
}

func TestService(t *testing.T) {
	at := netip.AddrPortFrom
	many := make([]netip.AddrPort, 3*serviceBatch)
	for i := range many {
		many[i] = at(good[i%2], 8080)
	}
	tests := []struct {
		name   string
		to     []netip.AddrPort
		verb   verb
		reason stat.Reason
	}{
		{"all allowed", []netip.AddrPort{at(good[0], 8080), at(good[1], 8080)}, verbResume, stat.OK},
		{"all denied", []netip.AddrPort{at(bad, 8080), at(addrB, 8080)}, verbDrop, stat.Policy},
		{"other port denied", []netip.AddrPort{at(good[0], 80)}, verbDrop, stat.Policy},
		{"one denied elsewhere", []netip.AddrPort{at(good[0], 8080), at(bad, 8080)}, verbDrop, stat.Policy},
		{"one denied here: its hook judges", []netip.AddrPort{at(addrB, 8080), at(good[0], 8080)}, verbResume, stat.OK},
		{"itself", []netip.AddrPort{at(addrA, 9)}, verbResume, stat.OK},
		{"itself and one denied here", []netip.AddrPort{at(addrA, 9), at(addrB, 9)}, verbResume, stat.OK},
		{"itself and one denied elsewhere", []netip.AddrPort{at(addrA, 9), at(bad, 9)}, verbDrop, stat.Policy},
		{"many", many, verbResume, stat.OK},
		{"many, and one denied last", append(many[:len(many):len(many)], at(bad, 8080)), verbDrop, stat.Policy},
		{"none: as any address", nil, verbDrop, stat.Policy},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := serviceWorker(t, tt.to...)
			s := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: vip, sport: 40000, dport: 80, syn: true}
			p := w.judgeOne(s.frame(t))
			if p.verb != tt.verb || p.reason != tt.reason {
				t.Errorf("verb %d, reason %v; want %d, %v", p.verb, p.reason, tt.verb, tt.reason)
			}
			s.dport = 81
			if p := w.judgeOne(s.frame(t)); p.reason != stat.Policy {
				t.Errorf("a port that is not the Service's: verb %d, reason %v", p.verb, p.reason)
			}
		})
	}
}

// What is translated is judged again where it comes out, by the egress rules of
// the pod that sent it as well.
func TestServiceComesOut(t *testing.T) {
	w := serviceWorker(t, netip.AddrPortFrom(addrB, 80), netip.AddrPortFrom(good[0], 8080))
	s := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: vip, sport: 40000, dport: 80, syn: true}
	if p := w.judgeOne(s.frame(t)); p.verb != verbResume {
		t.Fatalf("verb %d, reason %v", p.verb, p.reason)
	}
	s.hook, s.slot, s.dst = event.ToPod, slotB, addrB
	if p := w.judgeOne(s.frame(t)); p.reason != stat.Policy {
		t.Errorf("verb %d, reason %v", p.verb, p.reason)
	}
}

func TestServiceTable(t *testing.T) {
	var list []Service
	for i := range 3000 {
		a := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		if i%2 == 1 {
			a = netip.MustParseAddr(fmt.Sprintf("fd00:96::%x", i))
		}
		list = append(list, Service{Addr: a, Proto: packet.ProtoUDP, Port: uint16(1 + i%7), Backends: []netip.AddrPort{netip.AddrPortFrom(a, uint16(i+1))}})
	}
	table := newServiceTable(3, list)
	for _, s := range list {
		a := packet.AddrFrom(s.Addr)
		if got := table.lookup(a, s.Proto, s.Port); len(got) != 1 || got[0].addr != a || got[0].port != s.Backends[0].Port() {
			t.Fatalf("%v: %v", s, got)
		}
		if len(table.lookup(a, packet.ProtoTCP, s.Port)) > 0 || len(table.lookup(a, s.Proto, 8)) > 0 || len(table.lookup(a, s.Proto, 0)) > 0 {
			t.Fatalf("%v: found by what it isn't", s)
		}
	}
	var empty serviceTable
	if empty.lookup(packet.AddrFrom(vip), packet.ProtoTCP, 80) != nil {
		t.Error("found in nothing")
	}
}

func TestServiceDoesNotAllocate(t *testing.T) {
	w := serviceWorker(t, netip.AddrPortFrom(bad, 8080), netip.AddrPortFrom(good[0], 8080))
	to := w.snap.services.lookup(packet.AddrFrom(vip), packet.ProtoTCP, 80)
	var v classify.Verdict
	if n := testing.AllocsPerRun(100, func() { v = w.askService(w.snap, slotA, to, packet.ProtoTCP) }); n != 0 || v.Allowed() {
		t.Errorf("%v allocations, allowed: %v", n, v.Allowed())
	}
}
