package compile

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// programs numbers the distinct Programs that are in use. A number that
// is free is given out again.
type programs struct {
	list    []rule.Program // published: copied before it is written
	shared  bool
	changed bool // since the last publish
	ids     map[string]rule.ProgramID
	keys    []string // by ProgramID
	users   []int    // by ProgramID
	free    []rule.ProgramID
}

func newPrograms() programs { return programs{ids: map[string]rule.ProgramID{}} }

// take returns the number of a Program, for one user more.
func (p *programs) take(body *rule.Program) rule.ProgramID {
	key := string(spell(body))
	id, ok := p.ids[key]
	if ok {
		p.users[id]++
		return id
	}
	if n := len(p.free); n > 0 {
		id = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		id = rule.ProgramID(len(p.users))
		p.users, p.keys = append(p.users, 0), append(p.keys, "")
	}
	p.ids[key], p.keys[id], p.users[id] = id, key, 1
	p.set(id, *body)
	return id
}

// release gives back what take returned for both directions of a subject.
func (p *programs) release(ids [2]rule.ProgramID) {
	for _, id := range ids {
		if p.users[id]--; p.users[id] == 0 {
			delete(p.ids, p.keys[id])
			p.free = append(p.free, id)
			p.set(id, rule.Program{})
		}
	}
}

func (p *programs) set(id rule.ProgramID, to rule.Program) {
	if p.shared {
		p.list, p.shared = slices.Clone(p.list), false
	}
	p.changed = true
	if int(id) == len(p.list) {
		p.list = append(p.list, to)
	} else {
		p.list[id] = to
	}
}

// publish returns the list, and nil if it is as it was the last time.
func (p *programs) publish() []rule.Program {
	if !p.changed {
		return nil
	}
	p.shared, p.changed = true, false
	return p.list
}

// spell writes a Program out unambiguously, causes included.
func spell(p *rule.Program) []byte {
	b := spellTiers(nil, p.Tiers)
	if p.Staged != nil {
		b = spellTiers(append(b, 'S'), p.Staged)
	}
	return b
}

func spellTiers(b []byte, tiers []rule.Tier) []byte {
	for i := range tiers {
		t := &tiers[i]
		b = append(b, 'T', byte(t.Default), flag(t.DefaultAudit))
		b = binary.AppendUvarint(b, uint64(t.DefaultCause))
		b = append(binary.AppendUvarint(b, uint64(len(t.Name))), t.Name...)
		b = binary.AppendUvarint(b, uint64(len(t.Rules)))
		for j := range t.Rules {
			r := &t.Rules[j]
			b = append(b, byte(r.Action), flag(r.Log), flag(r.Audit), flag(r.AnyPeer), flag(r.AnyPort))
			b = binary.AppendUvarint(b, uint64(r.Cause))
			b = appendPeers(appendPeers(b, r.Peers), r.Not)
			b = binary.AppendUvarint(b, uint64(len(r.And)))
			for _, list := range r.And {
				b = appendPeers(b, list)
			}
			b = appendPorts(appendPorts(b, r.Ports), r.NotPorts)
		}
	}
	return b
}

func appendPeers(b []byte, peers []rule.PeerID) []byte {
	b = binary.AppendUvarint(b, uint64(len(peers)))
	for _, p := range peers {
		b = binary.AppendUvarint(b, uint64(p))
	}
	return b
}

// lists returns what is enforced and what is staged of a Program.
func lists(p *rule.Program) [2][]rule.Tier { return [2][]rule.Tier{p.Tiers, p.Staged} }

// sum hashes each rule of a subject.
func (b *builder) sum(s *subject) {
	for d := range s.body {
		for l, tiers := range lists(&s.body[d]) {
			s.sums[d][l] = make([][]uint64, len(tiers))
			for i := range tiers {
				s.sums[d][l][i] = make([]uint64, len(tiers[i].Rules))
				for k := range tiers[i].Rules {
					s.sums[d][l][i][k] = b.hashRule(&tiers[i].Rules[k])
				}
			}
		}
	}
}

// resum hashes those rules of a subject anew that have one of the peers.
func (b *builder) resum(s *subject, peers map[rule.PeerID]struct{}) {
	for d := range s.body {
		for l, tiers := range lists(&s.body[d]) {
			for i, t := range tiers {
				for k := range t.Rules {
					has := false
					t.Rules[k].EachPeer(func(id rule.PeerID) {
						_, ok := peers[id]
						has = has || ok
					})
					if has {
						s.sums[d][l][i][k] = b.hashRule(&t.Rules[k])
					}
				}
			}
		}
	}
}

// hash stands for all verdicts of a subject: it changes whenever the verdict
// of any packet does, and not for what cannot change one: the numbers of peers
// and causes, names, logging, and the order of rules that do the same.
func (b *builder) hash(s *subject) uint64 {
	var h maphash.Hash
	h.SetSeed(b.c.seed)
	for d := range s.body {
		for l, tiers := range lists(&s.body[d]) {
			maphash.WriteComparable(&h, len(tiers))
			for i := range tiers {
				maphash.WriteComparable(&h, [2]byte{byte(tiers[i].Default), flag(tiers[i].DefaultAudit)})
				hashRules(&h, tiers[i].Rules, s.sums[d][l][i])
			}
		}
	}
	return h.Sum64()
}

// hashRules hashes runs of rules that do the same as sets.
func hashRules(h *maphash.Hash, rules []rule.Rule, sums []uint64) {
	var room [64]uint64
	for len(rules) > 0 {
		n := 1
		for n < len(rules) && rules[n].Action == rules[0].Action && rules[n].Audit == rules[0].Audit {
			n++
		}
		run := append(room[:0], sums[:n]...)
		slices.Sort(run)
		for _, s := range slices.Compact(run) {
			maphash.WriteComparable(h, s)
		}
		maphash.WriteComparable(h, [2]byte{byte(rules[0].Action), flag(rules[0].Audit)})
		rules, sums = rules[n:], sums[n:]
	}
}

func (b *builder) hashRule(r *rule.Rule) uint64 {
	var h maphash.Hash
	h.SetSeed(b.c.seed)
	maphash.WriteComparable(&h, [2]bool{r.AnyPeer, r.AnyPort})
	b.hashPeers(&h, r.Peers)
	var room [64]byte
	h.Write(appendPorts(room[:0], r.Ports))
	if r.And == nil && r.Not == nil && r.NotPorts == nil {
		return h.Sum64()
	}
	for _, list := range r.And {
		h.WriteByte('&')
		b.hashPeers(&h, list)
	}
	h.WriteByte('!')
	b.hashPeers(&h, r.Not)
	h.Write(appendPorts(room[:0], r.NotPorts))
	return h.Sum64()
}

func (b *builder) hashPeers(h *maphash.Hash, peers []rule.PeerID) {
	var room [16]uint64
	sums := room[:0]
	for _, p := range peers {
		sums = append(sums, b.peers.Hash(p))
	}
	slices.Sort(sums)
	for _, s := range slices.Compact(sums) {
		maphash.WriteComparable(h, s)
	}
}

func appendPorts(b []byte, ports []rule.PortRange) []byte {
	b = binary.AppendUvarint(b, uint64(len(ports)))
	for _, p := range ports {
		b = append(b, p.Proto)
		b = binary.LittleEndian.AppendUint16(b, p.From)
		b = binary.LittleEndian.AppendUint16(b, p.To)
	}
	return b
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}
