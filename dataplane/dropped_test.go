package dataplane

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// dropPlane has rules and no workers: pod a may reach good addresses on TCP 8080.
func dropPlane(t *testing.T, period time.Duration) *Plane {
	t.Helper()
	set := serviceSet()
	table, err := classify.Build(set)
	if err != nil {
		t.Fatal(err)
	}
	p := &Plane{seed: 1, table: table, host: newHostTable(1, nil), cfg: Config{DenyReport: period}, slots: []slot{{},
		{used: true, ready: true, gen: 1, ep: endpoint.Endpoint{ID: slotA, Addrs: []netip.Addr{addrA}}},
		{used: true, ready: true, gen: 1, ep: endpoint.Endpoint{ID: slotB, Addrs: []netip.Addr{addrB}}}}}
	if err := p.dropped.init(p); err != nil {
		t.Fatal(err)
	}
	p.interest.Store(uint32(event.WantAll))
	p.dropped.hits.Grow(len(set.Causes))
	p.refresh()
	return p
}

func (p *Plane) told() []event.Record {
	buf := make([]event.Record, dropRing)
	return buf[:p.dropped.ring.Read(buf)]
}

// Either end's packets are dropped; it is the pod that opened the flow that may not.
func TestHostDropped(t *testing.T) {
	out := segment{src: addrA, dst: bad, sport: 40000, dport: 80, syn: true}
	for _, tt := range []struct {
		name   string
		s      segment
		reply  bool
		reason stat.Reason
		src    endpoint.ID
		dst    endpoint.ID
	}{
		{"to the backend", out, false, stat.Policy, slotA, endpoint.None},
		{"from the backend", segment{src: bad, dst: addrA, sport: 80, dport: 40000, ack: true}, true, stat.Policy, endpoint.None, slotA},
		{"to a pod of this node", segment{src: addrA, dst: addrB, sport: 40000, dport: 80, syn: true}, false, stat.Policy, slotA, slotB},
		{"from a pod of this node", segment{src: addrB, dst: addrA, sport: 80, dport: 40000, ack: true}, true, stat.Policy, slotB, slotA},
		{"allowed by now", segment{src: addrA, dst: good[0], sport: 40000, dport: 8080, syn: true}, false, stat.NotReady, slotA, endpoint.None},
		{"of a pod that has gone", segment{src: bad, dst: good[0], sport: 40000, dport: 8080, syn: true}, false, stat.NotReady, endpoint.None, endpoint.None},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := dropPlane(t, time.Hour)
			p.HostDropped(tt.s.frame(t)[14:])
			recs := p.told()
			if len(recs) != 1 {
				t.Fatalf("%d events", len(recs))
			}
			r := &recs[0]
			src, dst, sport, dport := r.Key.Tuple(r.Side)
			if src.Netip() != tt.s.src || dst.Netip() != tt.s.dst || sport != tt.s.sport || dport != tt.s.dport || r.Src != tt.src || r.Dst != tt.dst {
				t.Errorf("%v:%d of %d to %v:%d of %d", src.Netip(), sport, r.Src, dst.Netip(), dport, r.Dst)
			}
			if r.Kind != event.Denied || r.Allowed || r.Hook != event.InHost || r.Reason != tt.reason || r.Reply != tt.reply || r.TimeNs == 0 {
				t.Errorf("%+v", r)
			}
			want := rule.NoCause
			if tt.reason == stat.Policy {
				want = 2
			}
			if r.Egress != want || r.Ingress != rule.NoCause {
				t.Errorf("causes %d, %d; want %d", r.Egress, r.Ingress, want)
			}
		})
	}
}

// Each packet is in one event or in the count of one, and in the policy's.
func TestHostDroppedAreCounted(t *testing.T) {
	p := dropPlane(t, 20*time.Millisecond)
	first := segment{src: addrA, dst: bad, sport: 40000, dport: 80, syn: true}.frame(t)[14:]
	const sent = 50
	for range sent {
		p.HostDropped(first)
	}
	time.Sleep(30 * time.Millisecond)
	p.FlushDropped(7)
	told := 0
	for _, r := range p.told() {
		told += 1 + int(r.Suppressed)
	}
	if told != sent {
		t.Errorf("%d packets told of, want %d", told, sent)
	}
	if n := len(p.dropped.reports); n != 0 {
		t.Errorf("%d flows that fell silent are remembered", n)
	}
	p.Hits(func(id rule.CauseID, h stat.Hit) {
		if id != 2 || h.Denied != sent {
			t.Errorf("cause %d: %+v", id, h)
		}
	})
	if n := p.LostEvents(); n != 7 {
		t.Errorf("%d lost, want those that were not read", n)
	}
	// What nobody listens to, and what can't be understood.
	p.interest.Store(0)
	p.HostDropped(first)
	p.interest.Store(uint32(event.WantAll))
	for n := range first[:40] {
		p.HostDropped(first[:n])
	}
	if got := p.told(); len(got) != 0 {
		t.Errorf("events %+v", got)
	}
}
