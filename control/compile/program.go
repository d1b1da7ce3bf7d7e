package compile

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// program returns the number of the Program with these tiers; equal ones share
// one.
func (b *builder) program(tiers []rule.Tier) rule.ProgramID {
	key := string(spell(tiers))
	id, ok := b.programs[key]
	if !ok {
		id = rule.ProgramID(len(b.set.Programs))
		b.programs[key] = id
		b.set.Programs = append(b.set.Programs, rule.Program{Tiers: tiers})
	}
	return id
}

// spell writes tiers out unambiguously, causes included.
func spell(tiers []rule.Tier) []byte {
	var b []byte
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
			b = binary.AppendUvarint(b, uint64(len(r.Peers)))
			for _, p := range r.Peers {
				b = binary.AppendUvarint(b, uint64(p))
			}
			b = appendPorts(b, r.Ports)
		}
	}
	return b
}

// hash stands for all verdicts of an endpoint with these tiers: it changes
// whenever the verdict of any packet does, and not for what cannot change one:
// the numbers of peers and causes, names, logging, and the order of rules that
// do the same.
func (b *builder) hash(ingress, egress []rule.Tier) uint64 {
	var h maphash.Hash
	h.SetSeed(b.c.seed)
	for _, tiers := range [2][]rule.Tier{ingress, egress} {
		maphash.WriteComparable(&h, len(tiers))
		for i := range tiers {
			maphash.WriteComparable(&h, [2]byte{byte(tiers[i].Default), flag(tiers[i].DefaultAudit)})
			b.hashRules(&h, tiers[i].Rules)
		}
	}
	return h.Sum64()
}

// hashRules hashes runs of rules that do the same as sets.
func (b *builder) hashRules(h *maphash.Hash, rules []rule.Rule) {
	for len(rules) > 0 {
		n := 1
		for n < len(rules) && rules[n].Action == rules[0].Action && rules[n].Audit == rules[0].Audit {
			n++
		}
		sums := make([]uint64, n)
		for i := range sums {
			sums[i] = b.hashRule(&rules[i])
		}
		slices.Sort(sums)
		for _, s := range slices.Compact(sums) {
			maphash.WriteComparable(h, s)
		}
		maphash.WriteComparable(h, [2]byte{byte(rules[0].Action), flag(rules[0].Audit)})
		rules = rules[n:]
	}
}

func (b *builder) hashRule(r *rule.Rule) uint64 {
	var h maphash.Hash
	h.SetSeed(b.c.seed)
	maphash.WriteComparable(&h, [2]bool{r.AnyPeer, r.AnyPort})
	sums := make([]uint64, len(r.Peers))
	for i, p := range r.Peers {
		sums[i] = b.peers.Hash(p)
	}
	slices.Sort(sums)
	for _, s := range slices.Compact(sums) {
		maphash.WriteComparable(&h, s)
	}
	h.Write(appendPorts(nil, r.Ports))
	return h.Sum64()
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
