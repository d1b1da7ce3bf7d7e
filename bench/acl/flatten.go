// Package acl compares dataplane/classify with DPDK's librte_acl on the same
// rules and the same packets. rte_acl knows no sets of addresses, so a Set is
// expanded for it into rules of one prefix, protocol and port range each.
//
// The C side is peer/acl.c, which Compile builds where librte_acl is there. Go
// and C take turns within one run, on one CPU, and have to give the same
// verdict for every packet before any time counts.
package acl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Rule is one rule for rte_acl, as peer/acl.c reads it (struct line).
type Rule struct {
	Remote, Bits     uint32
	Proto, ProtoMask uint32
	Row              uint32
	From, To         uint32
	Priority, Data   uint32 // Data is the verdict + 1; 0 stands for no match
}

// firstPriority is what the first rule of a row gets; later ones get less.
const firstPriority = 1 << 28

// Flatten expands the programs of a Set's endpoints, for IPv4. The table says
// what the rows are called.
func Flatten(set *rule.Set, table *classify.Table) ([]Rule, error) {
	f := &flattener{set: set, prefixes: map[rule.PeerID][]netip.Prefix{}, done: map[classify.Row]bool{}}
	if err := f.index(); err != nil {
		return nil, err
	}
	for _, e := range set.Endpoints {
		for d, p := range map[rule.Direction]rule.ProgramID{rule.Ingress: e.Ingress, rule.Egress: e.Egress} {
			row := table.Row(e.ID, d)
			if f.done[row] {
				continue
			}
			f.done[row] = true
			if err := f.program(row, &set.Programs[p]); err != nil {
				return nil, fmt.Errorf("flatten program %d: %w", p, err)
			}
		}
	}
	slices.SortFunc(f.rules, func(a, b Rule) int {
		if a.Row != b.Row {
			return int(a.Row) - int(b.Row)
		}
		return int(b.Priority) - int(a.Priority)
	})
	return f.rules, nil
}

type flattener struct {
	set      *rule.Set
	prefixes map[rule.PeerID][]netip.Prefix
	done     map[classify.Row]bool
	rules    []Rule
}

// index lists the prefixes of each peer.
func (f *flattener) index() error {
	for _, a := range f.set.Addresses {
		if a.Addr.Is4() {
			for _, p := range f.set.Identities[a.Identity] {
				f.prefixes[p] = append(f.prefixes[p], netip.PrefixFrom(a.Addr, 32))
			}
		}
	}
	for _, b := range f.set.Blocks {
		if b.Unbound {
			return fmt.Errorf("flatten block %s: rte_acl can't tell unbound addresses", b.Prefix)
		}
		if b.Prefix.Addr().Is4() {
			f.prefixes[b.Peer] = append(f.prefixes[b.Peer], subtract(b.Prefix, b.Except)...)
		}
	}
	return nil
}

// subtract cuts exceptions out of a prefix.
func subtract(p netip.Prefix, except []netip.Prefix) []netip.Prefix {
	inside := false
	for _, e := range except {
		if e.Bits() <= p.Bits() && e.Contains(p.Addr()) {
			return nil
		}
		inside = inside || e.Overlaps(p)
	}
	if !inside {
		return []netip.Prefix{p}
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	b := p.Addr().As4()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	high := netip.PrefixFrom(netip.AddrFrom4(b), p.Bits()+1)
	return append(subtract(low, except), subtract(high, except)...)
}

// program expands one program: the rules of all tiers in order, and last what
// holds if none matches.
func (f *flattener) program(row classify.Row, p *rule.Program) error {
	priority := uint32(firstPriority)
	anywhere := []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	anything := []rule.PortRange{{Proto: rule.AnyProto, To: 65535}}
	for _, t := range p.Tiers {
		for _, r := range t.Rules {
			if r.Action == rule.Next || len(r.And)+len(r.Not)+len(r.NotPorts) > 0 {
				return fmt.Errorf("tier %q: a rule of more than one list of peers and ports has no flat form", t.Name)
			}
			prefixes, ports := anywhere, anything
			if !r.AnyPeer {
				prefixes = nil
				for _, peer := range r.Peers {
					prefixes = append(prefixes, f.prefixes[peer]...)
				}
			}
			if !r.AnyPort {
				ports = r.Ports
			}
			v, err := verdict(r.Action, r.Audit, r.Log, r.Cause)
			if err != nil {
				return err
			}
			f.add(row, prefixes, ports, priority, v)
			priority--
		}
		if t.Default == rule.Pass {
			continue
		}
		v, err := verdict(t.Default, t.DefaultAudit, false, t.DefaultCause)
		f.add(row, anywhere, anything, priority, v)
		return err
	}
	v, err := verdict(rule.Allow, false, false, rule.NoCause)
	f.add(row, anywhere, anything, priority, v)
	return err
}

// verdict spells a verdict as classify does.
func verdict(a rule.Action, audit, log bool, cause rule.CauseID) (uint32, error) {
	if a == rule.Pass || log {
		return 0, fmt.Errorf("rte_acl has neither passes nor rules that log")
	}
	v := uint32(cause) << 3
	if a == rule.Allow || audit {
		v |= 1
	}
	if a == rule.Deny && audit {
		v |= 2
	}
	return v, nil
}

func (f *flattener) add(row classify.Row, prefixes []netip.Prefix, ports []rule.PortRange, priority, verdict uint32) {
	for _, p := range prefixes {
		b := p.Addr().As4()
		for _, r := range ports {
			line := Rule{
				Remote: binary.BigEndian.Uint32(b[:]), Bits: uint32(p.Bits()), Row: uint32(row),
				Proto: uint32(r.Proto), ProtoMask: 0xff, From: uint32(r.From), To: uint32(r.To),
				Priority: priority, Data: verdict + 1,
			}
			if r.Proto == rule.AnyProto {
				line.ProtoMask, line.From, line.To = 0, 0, 65535
			}
			f.rules = append(f.rules, line)
		}
	}
}

// Key is one packet for rte_acl, as peer/acl.c reads it (struct key).
func Key(q classify.Query) [12]byte {
	var k [12]byte
	k[0] = byte(q.Proto)
	binary.BigEndian.PutUint32(k[4:], q.Remote.V4())
	binary.BigEndian.PutUint16(k[8:], uint16(q.Row))
	binary.BigEndian.PutUint16(k[10:], q.Port)
	return k
}
