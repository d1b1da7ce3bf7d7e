package ruletest

import (
	"math/rand/v2"
	"net/netip"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// Traffic describes a trace of questions for a Set.
type Traffic struct {
	Seed  uint64
	Count int
	IPv6  bool
	// Zipf draws the questions from 4096 flows by a Zipf law (s = 1.1), as
	// few flows carry most packets; otherwise each question is a new flow.
	Zipf bool
}

// zipfFlows is how many flows a Zipf trace is drawn from.
const zipfFlows = 4096

// Trace draws questions: a random endpoint and direction; half of them made
// to match a rule of its program, the others from any bound address (4 of 5)
// or none to any port.
func (t Traffic) Trace(set *rule.Set) []Probe {
	d := drawer{rng: rand.New(rand.NewPCG(t.Seed, 7)), set: set, byPeer: map[rule.PeerID][]netip.Addr{}, ipv6: t.IPv6}
	d.index()
	if !t.Zipf {
		return d.draw(t.Count)
	}
	flows := d.draw(zipfFlows)
	zipf := rand.NewZipf(d.rng, 1.1, 1, zipfFlows-1)
	out := make([]Probe, t.Count)
	for i := range out {
		out[i] = flows[zipf.Uint64()]
	}
	return out
}

type drawer struct {
	rng    *rand.Rand
	set    *rule.Set
	ipv6   bool
	bound  []netip.Addr
	byPeer map[rule.PeerID][]netip.Addr // bound addresses, and one of each block
}

func (d *drawer) index() {
	for _, a := range d.set.Addresses {
		if a.Addr.Is6() != d.ipv6 {
			continue
		}
		d.bound = append(d.bound, a.Addr)
		for _, p := range d.set.Identities[a.Identity] {
			d.byPeer[p] = append(d.byPeer[p], a.Addr)
		}
	}
	for _, b := range d.set.Blocks {
		if b.Prefix.Addr().Is6() == d.ipv6 {
			d.byPeer[b.Peer] = append(d.byPeer[b.Peer], d.inside(b.Prefix))
		}
	}
}

// inside draws an address of a prefix.
func (d *drawer) inside(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= byte(d.rng.IntN(2)) << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (d *drawer) draw(n int) []Probe {
	out := make([]Probe, n)
	for i := range out {
		e := d.set.Endpoints[d.rng.IntN(len(d.set.Endpoints))]
		p := Probe{Endpoint: e.ID, Direction: rule.Direction(d.rng.IntN(2)), Proto: 6, Port: uint16(d.rng.IntN(1 << 16))}
		program := d.set.Programs[e.Ingress]
		if p.Direction == rule.Egress {
			program = d.set.Programs[e.Egress]
		}
		switch {
		case d.rng.IntN(2) == 0 && d.matching(&p, &program):
		case d.rng.IntN(5) > 0 && len(d.bound) > 0:
			p.Remote = d.bound[d.rng.IntN(len(d.bound))]
		case d.ipv6:
			p.Remote = d.inside(netip.MustParsePrefix("2001:db8::/32"))
		default:
			p.Remote = d.inside(netip.MustParsePrefix("0.0.0.0/0"))
		}
		out[i] = p
	}
	return out
}

// matching makes p match some rule of the first tier.
func (d *drawer) matching(p *Probe, program *rule.Program) bool {
	if len(program.Tiers) == 0 || len(program.Tiers[0].Rules) == 0 {
		return false
	}
	r := program.Tiers[0].Rules[d.rng.IntN(len(program.Tiers[0].Rules))]
	if len(r.Peers) == 0 || len(r.Ports) == 0 {
		return false
	}
	addrs := d.byPeer[r.Peers[d.rng.IntN(len(r.Peers))]]
	if len(addrs) == 0 {
		return false
	}
	ports := r.Ports[d.rng.IntN(len(r.Ports))]
	p.Remote = addrs[d.rng.IntN(len(addrs))]
	p.Proto, p.Port = ports.Proto, ports.From+uint16(d.rng.IntN(int(ports.To)-int(ports.From)+1))
	return true
}
