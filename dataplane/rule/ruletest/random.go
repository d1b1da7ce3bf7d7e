package ruletest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Size bounds what Random draws; each count is drawn between 0 and its field.
type Size struct {
	Peers, Identities, Addresses, Blocks int
	Endpoints, Programs, Tiers, Rules    int
	Ports                                int // ranges of one rule
}

// Small keeps a Set readable when a test fails.
func Small() Size {
	return Size{Peers: 12, Identities: 10, Addresses: 30, Blocks: 20,
		Endpoints: 6, Programs: 6, Tiers: 4, Rules: 7, Ports: 4}
}

// Random draws a valid Set that is made to hurt: few distinct addresses,
// prefixes and ports, so that everything nests, overlaps and touches; blocks
// with exceptions that are equal, wider, foreign or of the other family;
// peers, rules and causes that are shared, programs that are duplicated or
// unused, and rules that can match nothing. Equal seeds give equal Sets.
func Random(rng *rand.Rand, size Size) *rule.Set {
	g := generator{rng: rng, size: size}
	g.set.Generation = 1 + rng.Uint64N(1<<32)
	g.set.Peers = g.upTo(size.Peers)
	g.set.Causes = make([]rule.Cause, 1)
	for range g.upTo(size.Identities) {
		g.set.Identities = append(g.set.Identities, g.identity())
	}
	g.set.Addresses = g.addresses()
	for range g.upTo(size.Blocks) {
		if g.set.Peers > 0 {
			g.set.Blocks = append(g.set.Blocks, g.block())
		}
	}
	for range 1 + g.upTo(size.Programs) {
		g.set.Programs = append(g.set.Programs, g.Program())
	}
	if n := len(g.set.Programs); g.one(3) {
		g.set.Programs = append(g.set.Programs, g.set.Programs[g.rng.IntN(n)])
	}
	id := endpoint.ID(0)
	for range g.upTo(size.Endpoints) {
		id += 1 + endpoint.ID(rng.IntN(3))
		g.set.Endpoints = append(g.set.Endpoints, rule.Endpoint{
			ID:         id,
			Ingress:    rule.ProgramID(rng.IntN(len(g.set.Programs))),
			Egress:     rule.ProgramID(rng.IntN(len(g.set.Programs))),
			Generation: 1 + rng.Uint32N(100),
		})
	}
	return &g.set
}

type generator struct {
	rng  *rand.Rand
	size Size
	set  rule.Set
}

func (g *generator) upTo(n int) int  { return g.rng.IntN(n + 1) }
func (g *generator) one(in int) bool { return g.rng.IntN(in) == 0 }
func (g *generator) pick(n int) int  { return g.rng.IntN(n) }
func (g *generator) cause() rule.CauseID {
	if n := len(g.set.Causes); g.one(5) {
		return rule.CauseID(g.rng.IntN(n))
	}
	id := rule.CauseID(len(g.set.Causes))
	g.set.Causes = append(g.set.Causes, rule.Cause{Text: fmt.Sprintf("cause %d", id)})
	return id
}

func (g *generator) peers(atMost int) []rule.PeerID {
	var out []rule.PeerID
	if g.set.Peers == 0 {
		return nil
	}
	for range g.upTo(atMost) {
		out = append(out, rule.PeerID(g.rng.IntN(g.set.Peers)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (g *generator) identity() rule.Identity {
	if n := len(g.set.Identities); n > 0 && g.one(8) {
		return g.set.Identities[g.pick(n)]
	}
	return g.peers(5)
}

func (g *generator) addresses() []rule.Address {
	if len(g.set.Identities) == 0 {
		return nil
	}
	var out []rule.Address
	for range g.upTo(g.size.Addresses) {
		out = append(out, rule.Address{Addr: RandomAddr(g.rng), Identity: uint32(g.pick(len(g.set.Identities)))})
	}
	slices.SortStableFunc(out, func(a, b rule.Address) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(out, func(a, b rule.Address) bool { return a.Addr == b.Addr })
}

func (g *generator) block() rule.Block {
	b := rule.Block{
		Peer:    rule.PeerID(g.rng.IntN(g.set.Peers)),
		Prefix:  RandomPrefix(g.rng),
		Unbound: g.one(3),
	}
	for range max(0, g.rng.IntN(6)-2) {
		switch e := RandomPrefix(g.rng); {
		case g.one(10):
			b.Except = append(b.Except, b.Prefix)
		case g.one(4) || !b.Prefix.Overlaps(e):
			b.Except = append(b.Except, e) // possibly wider, foreign or of the other family
		default:
			inside := netip.PrefixFrom(e.Addr(), max(e.Bits(), b.Prefix.Bits()))
			b.Except = append(b.Except, inside.Masked())
		}
	}
	return b
}

// Program draws one program over the peers of the set.
func (g *generator) Program() rule.Program {
	p := rule.Program{Tiers: g.tiers()}
	if g.one(4) {
		p.Staged = g.tiers()
	}
	return p
}

func (g *generator) tiers() []rule.Tier {
	var out []rule.Tier
	for t := range g.upTo(g.size.Tiers) {
		tier := rule.Tier{
			Name:         fmt.Sprintf("tier %d", t),
			Default:      rule.Action(g.pick(3)),
			DefaultAudit: g.one(4),
			DefaultCause: g.cause(),
		}
		for range g.upTo(g.size.Rules) {
			tier.Rules = append(tier.Rules, g.rule())
		}
		out = append(out, tier)
	}
	return out
}

func (g *generator) rule() rule.Rule {
	r := rule.Rule{
		Action:  rule.Action(g.pick(3)),
		Log:     g.one(4),
		Audit:   g.one(4),
		AnyPeer: g.one(6),
		AnyPort: g.one(4),
		Peers:   g.peers(4),
		Cause:   g.cause(),
	}
	if g.one(8) {
		r.Action = rule.Next
	}
	for range g.upTo(g.size.Ports) {
		r.Ports = append(r.Ports, g.ports())
	}
	if g.one(3) {
		r.Not = g.peers(2)
	}
	for range max(0, g.pick(6)-3) {
		r.And = append(r.And, g.peers(4))
	}
	for range max(0, g.pick(5)-2) {
		r.NotPorts = append(r.NotPorts, g.ports())
	}
	return r
}

// protos has every protocol that Sluice names, one without ports, and the
// reserved last one.
var protos = []uint8{1, 6, 17, 58, 132, 47, 255}

// marks are the ports at which ranges begin and end, so that they touch.
var marks = []uint16{0, 1, 79, 80, 81, 442, 443, 444, 1023, 1024, 8 << 8, 8080, 32767, 32768, 65534, 65535}

func (g *generator) ports() rule.PortRange {
	if g.one(12) {
		return rule.PortRange{Proto: rule.AnyProto, From: marks[g.pick(len(marks))]}
	}
	r := rule.PortRange{Proto: protos[g.pick(len(protos))], From: marks[g.pick(len(marks))], To: marks[g.pick(len(marks))]}
	switch {
	case g.one(3):
		r.To = r.From
	case g.one(4):
		r.From, r.To = 0, 65535
	case r.From > r.To && !g.one(10): // an inverted range matches nothing
		r.From, r.To = r.To, r.From
	}
	return r
}

// RandomAddr draws from a small universe of both families in which equal
// prefixes of every length are common.
func RandomAddr(rng *rand.Rand) netip.Addr {
	if rng.IntN(2) == 0 {
		b := [4]byte{10, 0, 0, byte(rng.IntN(4))}
		for range rng.IntN(3) {
			b[rng.IntN(4)] ^= 1 << rng.IntN(8)
		}
		return netip.AddrFrom4(b)
	}
	b := [16]byte{0: 0xfd, 15: byte(rng.IntN(4))}
	for range rng.IntN(3) {
		b[rng.IntN(16)] ^= 1 << rng.IntN(8)
	}
	if a := netip.AddrFrom16(b); !a.Is4In6() {
		return a
	}
	return netip.IPv6Unspecified()
}

// RandomPrefix draws a masked prefix around a RandomAddr.
func RandomPrefix(rng *rand.Rand) netip.Prefix {
	a := RandomAddr(rng)
	bits := rng.IntN(a.BitLen() + 1)
	switch rng.IntN(6) {
	case 0:
		bits = 0
	case 1:
		bits = a.BitLen()
	case 2:
		bits = min(a.BitLen(), (bits+7)/8*8)
	}
	return netip.PrefixFrom(a, bits).Masked()
}

// Probe is one question to a Set.
type Probe struct {
	Endpoint  endpoint.ID
	Direction rule.Direction
	Remote    netip.Addr
	Proto     uint8
	Port      uint16
}

// RandomProbe draws a question whose parts lie at, or one beside, the edges
// of what the set names.
func RandomProbe(rng *rand.Rand, set *rule.Set) Probe {
	p := Probe{
		Endpoint:  endpoint.ID(rng.IntN(4)),
		Direction: rule.Direction(rng.IntN(2)),
		Remote:    RandomAddr(rng),
		Proto:     append(protos, 0, 200)[rng.IntN(len(protos)+2)],
		Port:      marks[rng.IntN(len(marks))] + uint16(rng.IntN(3)) - 1,
	}
	if n := len(set.Endpoints); n > 0 && rng.IntN(16) > 0 {
		p.Endpoint = set.Endpoints[rng.IntN(n)].ID
	}
	if n := len(set.Addresses); n > 0 && rng.IntN(3) == 0 {
		p.Remote = set.Addresses[rng.IntN(n)].Addr
	}
	if n := len(set.Blocks); n > 0 && rng.IntN(2) == 0 {
		b := set.Blocks[rng.IntN(n)]
		prefixes := append([]netip.Prefix{b.Prefix}, b.Except...)
		p.Remote = edge(rng, prefixes[rng.IntN(len(prefixes))])
	}
	return p
}

// edge returns the first or last address of a prefix, or the one beside it.
func edge(rng *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	last := rng.IntN(2) == 0
	for i := p.Bits(); last && i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	beside := a.Next()
	if !last {
		beside = a.Prev()
	}
	if rng.IntN(2) == 0 || !beside.IsValid() {
		return a
	}
	return beside
}
