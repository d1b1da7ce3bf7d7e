package flow

import (
	"math/bits"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// victim returns the flow on the path of a hash that gives way to a new one.
func (t *Table) victim(hash uint64, nowNs int64) Ref {
	best, bestRank, oldest := NoRef, keep, int64(0)
	p := newPath(hash, len(t.buckets))
	for range t.probes {
		bk := &t.buckets[p.at]
		for m := ^bk.vacant(); m != 0; m &= m - 1 {
			r := bk.ref[bits.TrailingZeros8(m)]
			e := &t.entries[r]
			rank := t.rank(e, nowNs)
			if rank < bestRank || rank == bestRank && rank != keep && e.LastSeenNs < oldest {
				best, bestRank, oldest = r, rank, e.LastSeenNs
			}
		}
		p.next()
	}
	return best
}

// Ranks of eviction, the lowest goes first.
const (
	expired = iota
	closing
	unanswered
	answered // ICMP, or UDP of a question and its answer, as of DNS
	unheard  // in the kernel's hands: may have been answered there
	keep
)

// rank says how readily a flow gives way. The packets of an offloaded flow
// don't pass here, so its idle time and its state may be out of date: of TCP
// only a closed one goes.
func (t *Table) rank(e *Entry, nowNs int64) int {
	offloaded := e.Flags&Offloaded != 0
	switch {
	case e.State == Closed:
		return closing
	case offloaded && e.Key.Proto == packet.ProtoTCP:
		return keep
	case !offloaded && t.Deadline(e) <= nowNs:
		return expired
	case e.State == FinWait:
		return closing
	case e.State == Established && !e.brief():
		return keep
	case offloaded:
		return unheard
	case e.State == Established:
		return answered
	}
	return unanswered
}
