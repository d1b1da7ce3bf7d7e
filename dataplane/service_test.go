package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
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
	w.publish(serviceSet())
	w.serve(Service{Addr: vip, Proto: packet.ProtoTCP, Port: 80, Backends: backends})
	return w
}

func (w *testWorker) serve(list ...Service) {
	snap := *w.snap
	snap.services = newServiceTable(7, list)
	w.snap = &snap
}

func serviceSet() *rule.Set {
	set := testSet(2, web...)
	set.Programs = append(set.Programs, rule.Program{Tiers: []rule.Tier{{
		Name:    "networkpolicy",
		Rules:   []rule.Rule{{Action: rule.Allow, Peers: []rule.PeerID{0}, Ports: []rule.PortRange{{Proto: 6, From: 8080, To: 8080}}, Cause: 1}},
		Default: rule.Deny, DefaultCause: 2,
	}}})
	set.Endpoints[0].Egress = 2
	set.Addresses = []rule.Address{{Addr: good[0]}, {Addr: good[1]}}
	return set
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

// Where the host judges its choice, for this pod, the flow may go to see it made.
func TestServiceGuarded(t *testing.T) {
	fine, wrong := netip.AddrPortFrom(good[0], 8080), netip.AddrPortFrom(bad, 8080)
	for _, tt := range []struct {
		name     string
		guarded  []netip.Addr
		backends []netip.AddrPort
		reason   stat.Reason
	}{
		{"for nobody", nil, []netip.AddrPort{fine, wrong}, stat.Policy},
		{"for another", []netip.Addr{addrB}, []netip.AddrPort{fine, wrong}, stat.Policy},
		{"for the pod", []netip.Addr{addrB, addrA}, []netip.AddrPort{fine, wrong}, stat.OK},
		{"nothing is allowed", []netip.Addr{addrA}, []netip.AddrPort{wrong}, stat.Policy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := serviceWorker(t)
			w.serve(Service{Addr: vip, Proto: packet.ProtoTCP, Port: 80, Backends: tt.backends, Guarded: tt.guarded},
				Service{Addr: vip, Proto: packet.ProtoTCP, Port: 81, Backends: []netip.AddrPort{fine, wrong}})
			s := segment{hook: event.FromPod, slot: slotA, src: addrA, dst: vip, sport: 40000, dport: 80, syn: true}
			if p := w.judgeOne(s.frame(t)); p.reason != tt.reason {
				t.Errorf("%v, want %v", p.reason, tt.reason)
			}
			s.dport = 81
			if p := w.judgeOne(s.frame(t)); p.reason != stat.Policy {
				t.Errorf("another Service, which is not guarded: %v", p.reason)
			}
		})
	}
}

// A flow outlives what its Service leads to: UDP sockets are used for long. Whom
// the change concerns is judged anew, and nobody else.
func TestServiceChanges(t *testing.T) {
	p := newTestPlane(t, &heldFilters{})
	for i, a := range []netip.Addr{addrA, addrB} {
		if _, err := p.Attach(endpoint.Endpoint{Name: a.String(), Addrs: []netip.Addr{a}, Link: endpoint.Link{Ifindex: 70 + i}}); err != nil {
			t.Fatal(err)
		}
	}
	at := func(backends ...netip.AddrPort) Service {
		return Service{Addr: vip, Proto: packet.ProtoUDP, Port: 53, Backends: backends}
	}
	other := Service{Addr: vip, Proto: packet.ProtoTCP, Port: 53, Backends: []netip.AddrPort{netip.AddrPortFrom(bad, 1)}}
	fine, wrong := netip.AddrPortFrom(good[0], 8080), netip.AddrPortFrom(bad, 8080)
	guarded := at(fine, wrong)
	guarded.Guarded = []netip.Addr{addrA}
	set := serviceSet()
	set.Programs[2].Tiers[0].Rules[0].Ports[0].Proto = uint8(packet.ProtoUDP)
	table, err := classify.Build(set)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.SetHost(nil, []Service{at(fine)}), p.Publish(table)); err != nil {
		t.Fatal(err)
	}
	inKernel := func(id endpoint.ID) uint32 {
		e, err := p.objs.Endpoint(uint32(id))
		if err != nil {
			t.Fatal(err)
		}
		return e.Gen
	}
	for _, step := range []struct {
		name string
		list []Service
		anew bool // pod a's flows
	}{
		{"the same", []Service{at(fine)}, false},
		{"another allowed backend", []Service{at(fine, netip.AddrPortFrom(good[1], 8080))}, false},
		{"another Service", []Service{at(fine), other}, false},
		{"a denied backend", []Service{at(wrong)}, true},
		{"the allowed one again", []Service{at(fine)}, true},
		{"one of both, the choice judged", []Service{guarded}, false},
		{"one of both, the choice not judged", []Service{at(fine, wrong)}, true},
		{"judged again", []Service{guarded}, true},
		{"no Service", nil, true},
	} {
		a, b := inKernel(slotA), inKernel(slotB)
		if err := p.SetHost(nil, step.list); err != nil {
			t.Fatal(err)
		}
		if got := inKernel(slotA) != a; got != step.anew {
			t.Errorf("%s: judged anew %v, want %v", step.name, got, step.anew)
		}
		if snap := p.snap.Load(); snap.endpoint(slotA).gen != inKernel(slotA) {
			t.Errorf("%s: the workers have generation %d, the kernel %d", step.name, snap.endpoint(slotA).gen, inKernel(slotA))
		}
		if inKernel(slotB) != b {
			t.Errorf("%s: a pod that may go anywhere is judged anew", step.name)
		}
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
		if got := table.lookup(a, s.Proto, s.Port).to; len(got) != 1 || got[0].addr != a || got[0].port != s.Backends[0].Port() {
			t.Fatalf("%v: %v", s, got)
		}
		if len(table.lookup(a, packet.ProtoTCP, s.Port).to) > 0 || len(table.lookup(a, s.Proto, 8).to) > 0 || len(table.lookup(a, s.Proto, 0).to) > 0 {
			t.Fatalf("%v: found by what it isn't", s)
		}
	}
	var empty serviceTable
	if len(empty.lookup(packet.AddrFrom(vip), packet.ProtoTCP, 80).to) > 0 {
		t.Error("found in nothing")
	}
}

// What the host translates at all its link-local addresses it does at any of them,
// unless it translates that one to elsewhere.
func TestServiceLinkLocal(t *testing.T) {
	at := netip.MustParseAddrPort
	one, other := netip.MustParseAddr("fe80::ecee:eeff:feee:eeee"), netip.MustParseAddr("febf::1")
	table := newServiceTable(5, []Service{
		{Addr: one, Proto: packet.ProtoTCP, Port: 30080, Backends: []netip.AddrPort{at("[fd00::1]:80")}},
		{Addr: AnyLinkLocal, Proto: packet.ProtoTCP, Port: 30080, Backends: []netip.AddrPort{at("[fd00::2]:80")}},
		{Addr: AnyLinkLocal, Proto: packet.ProtoUDP, Port: 30080, Backends: []netip.AddrPort{at("[fd00::3]:80")}},
	})
	for _, tt := range []struct {
		addr  netip.Addr
		proto packet.Proto
		port  uint16
		to    string
	}{
		{one, packet.ProtoTCP, 30080, "fd00::1"},
		{other, packet.ProtoTCP, 30080, "fd00::2"},
		{one, packet.ProtoUDP, 30080, "fd00::3"},
		{other, packet.ProtoTCP, 30081, ""},
		{netip.MustParseAddr("fec0::1"), packet.ProtoTCP, 30080, ""},
		{netip.MustParseAddr("169.254.1.1"), packet.ProtoTCP, 30080, ""},
	} {
		to := table.lookup(packet.AddrFrom(tt.addr), tt.proto, tt.port).to
		if tt.to == "" && len(to) == 0 {
			continue
		}
		if len(to) != 1 || tt.to == "" || to[0].addr != packet.AddrFrom(netip.MustParseAddr(tt.to)) {
			t.Errorf("%v, protocol %d, port %d: %v, want %q", tt.addr, tt.proto, tt.port, to, tt.to)
		}
	}
}

func TestServiceDoesNotAllocate(t *testing.T) {
	w := serviceWorker(t, netip.AddrPortFrom(bad, 8080), netip.AddrPortFrom(good[0], 8080))
	svc := w.snap.services.lookup(packet.AddrFrom(vip), packet.ProtoTCP, 80)
	var v classify.Verdict
	if n := testing.AllocsPerRun(100, func() { v = w.service.ask(w.snap, slotA, packet.AddrFrom(addrA), svc, packet.ProtoTCP) }); n != 0 || v.Allowed() {
		t.Errorf("%v allocations, allowed: %v", n, v.Allowed())
	}
}
