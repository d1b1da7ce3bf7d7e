// Package flow is the flow table of one worker: the flows that it has
// admitted, their TCP states and their idle times. One goroutine owns a table;
// there are no locks, and no memory is allocated after New.
//
// Cost: 128 bytes a flow and about 13 bytes of index a flow of capacity, as
// flat slabs that the garbage collector doesn't scan. Of the entries the kernel
// backs only what was used, by huge pages if it has them for who asks; of the index
// all from the start. A batched Lookup reads one cache line of index and one of entry a
// key, and the misses of a batch overlap.
//
// Overflow: a new flow that finds no room takes the place of an expired one,
// else of a closing one, else of the oldest one that is half open or unreplied,
// else of the oldest brief exchange (ICMP, a DNS question and its answer), among
// the at most 64 flows that share its places in the index. Established TCP and
// UDP streams never give way: where there are only those, Insert refuses.
package flow

import (
	"fmt"
	"math/bits"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// Table is a fixed-size table of flows.
type Table struct {
	hasher  packet.Hasher
	buckets []bucket
	probes  int
	entries []Entry
	used    uint32 // entries from here on were never used
	free    uint32 // head of the list of free entries below used, or noPlace
	live    int
	cursor  uint32 // next entry that Sweep looks at
	idle    idle
	touched uint64 // keeps the loads of lookup alive
}

const noPlace = 0xffffffff

// New returns a table that holds cfg.Capacity flows.
func New(cfg Config, hasher packet.Hasher) (*Table, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("create flow table: %w", err)
	}
	n := prime(cfg.Capacity/bucketLoad + 1)
	buckets := make([]bucket, n)
	// Flows spread over the index at once, so that the first ones would have a
	// page fault each to read and another to write.
	clear(buckets)
	entries := make([]Entry, cfg.Capacity)
	hugePages(entries)
	return &Table{
		hasher:  hasher,
		buckets: buckets,
		probes:  min(n, maxProbes),
		entries: entries,
		free:    noPlace,
		idle:    cfg.Timeouts.table(),
	}, nil
}

// Len returns the number of flows.
func (t *Table) Len() int { return t.live }

// Cap returns the number of flows that fit.
func (t *Table) Cap() int { return len(t.entries) }

// Used returns how many entries Sweep has to look at to see every flow.
func (t *Table) Used() int { return int(t.used) }

// Pressure returns the used part of the table, 0 to 1.
func (t *Table) Pressure() float64 { return float64(t.live) / float64(len(t.entries)) }

// At returns the entry of a live Ref. The pointer is good until Remove.
func (t *Table) At(r Ref) *Entry { return &t.entries[r] }

// Holds reports whether a Ref still stands for the flow of a key: another one
// may have taken its place since it was looked up.
func (t *Table) Holds(r Ref, k *packet.Key) bool {
	e := &t.entries[r]
	return e.State != Free && e.Key == *k
}

// Lookup hashes all keys into hashes and writes the Ref of each flow, or
// NoRef, to out. Both must be as long as keys. Of equal keys that are new, each
// gets NoRef: the caller asks Find before it inserts the second one.
func (t *Table) Lookup(keys []packet.Key, hashes []uint64, out []Ref) {
	for len(keys) > batch {
		t.lookup(keys[:batch], hashes[:batch], out[:batch])
		keys, hashes, out = keys[batch:], hashes[batch:], out[batch:]
	}
	t.lookup(keys, hashes[:len(keys)], out[:len(keys)])
}

// batch is what a word has bits for.
const batch = 64

// lookup works on at most 64 keys, in passes of loads that depend on nothing
// but the pass before and without branches on what they find. A pass that only
// touches a line a key has twice as many misses under way as one that works on
// it, because more of it fits the processor's window.
func (t *Table) lookup(keys []packet.Key, hashes []uint64, out []Ref) {
	hashes = hashes[:len(keys)]
	out = out[:len(keys)]
	for i := range keys {
		hashes[i] = t.hasher.Hash(&keys[i])
	}
	var touched uint64
	for _, h := range hashes {
		touched ^= t.buckets[home(h, len(t.buckets))].tag[0]
	}
	for i, h := range hashes {
		out[i] = t.buckets[home(h, len(t.buckets))].candidate(h)
	}
	for _, r := range out {
		absent := (uint64(r) + 1) >> 32 // 1 for NoRef
		touched ^= t.entries[uint64(r)&(absent-1)].Key.A.Lo
	}
	t.touched = touched
	var missed uint64
	for i := range keys {
		r := out[i]
		absent := (uint64(r) + 1) >> 32 // 1 for NoRef
		differs := difference(&t.entries[uint64(r)&(absent-1)].Key, &keys[i]) | absent
		missed |= (differs | -differs) >> 63 << (i % batch)
	}
	for ; missed != 0; missed &= missed - 1 {
		i := bits.TrailingZeros64(missed)
		out[i] = t.find(&keys[i], hashes[i])
	}
}

// difference is 0 for equal keys.
func difference(a, b *packet.Key) uint64 {
	return (a.A.Hi ^ b.A.Hi) | (a.A.Lo ^ b.A.Lo) | (a.B.Hi ^ b.B.Hi) | (a.B.Lo ^ b.B.Lo) |
		uint64(a.APort^b.APort) | uint64(a.BPort^b.BPort) | uint64(a.Proto^b.Proto)
}

// Find returns the Ref of one flow, or NoRef.
func (t *Table) Find(k *packet.Key) Ref { return t.find(k, t.hasher.Hash(k)) }

// Hash returns the hash of a key, as Lookup writes it and Insert wants it.
func (t *Table) Hash(k *packet.Key) uint64 { return t.hasher.Hash(k) }

// find follows the whole path of a key.
func (t *Table) find(k *packet.Key, hash uint64) Ref {
	p := newPath(hash, len(t.buckets))
	for range t.probes {
		bk := &t.buckets[p.at]
		for m := bk.match(hash); m != 0; m &= m - 1 {
			r := bk.ref[bits.TrailingZeros8(m)]
			if t.entries[r].Key == *k {
				return r
			}
		}
		if bk.passed == 0 {
			return NoRef
		}
		p.next()
	}
	return NoRef
}

// Insert adds a flow in state Unreplied; hash is what Lookup wrote for its key,
// which must not be in the table. It returns false if there is no room, see
// the package's comment. If the flow took the place of another one, evicted
// gets a copy of that one, else its State is Free: the caller must delete an
// Offloaded one from the kernel's flow cache.
func (t *Table) Insert(k *packet.Key, hash uint64, nowNs int64, evicted *Entry) (Ref, bool) {
	evicted.State = Free
	place, found := t.place(hash)
	if !found || t.free == noPlace && int(t.used) == len(t.entries) {
		victim := t.victim(hash, nowNs)
		if victim == NoRef {
			return NoRef, false
		}
		*evicted = t.entries[victim]
		t.Remove(victim)
		place, _ = t.place(hash)
	}
	r := t.take()
	e := &t.entries[r]
	*e = Entry{Key: *k, State: Unreplied, CreatedNs: nowNs, LastSeenNs: nowNs, place: place}
	t.buckets[place/ways].set(place%ways, hash, r)
	t.pass(hash, place, 1)
	t.live++
	return r, true
}

// Remove takes a flow out; its Ref is void.
func (t *Table) Remove(r Ref) {
	e := &t.entries[r]
	if e.State == Free {
		return
	}
	t.buckets[e.place/ways].clear(e.place % ways)
	t.pass(t.hasher.Hash(&e.Key), e.place, -1)
	e.State = Free
	e.place = t.free
	t.free = uint32(r)
	t.live--
	if t.live == 0 { // so that Sweep has nothing to walk over
		t.used, t.free, t.cursor = 0, noPlace, 0
	}
}

// take returns a free entry: the one used last, else one never used.
func (t *Table) take() Ref {
	if t.free != noPlace {
		r := Ref(t.free)
		t.free = t.entries[r].place
		return r
	}
	t.used++
	return Ref(t.used - 1)
}

// place finds an empty place on the path of a hash.
func (t *Table) place(hash uint64) (uint32, bool) {
	p := newPath(hash, len(t.buckets))
	for range t.probes {
		if way, ok := t.buckets[p.at].empty(); ok {
			return uint32(p.at)*ways + way, true
		}
		p.next()
	}
	return 0, false
}

// pass counts, in each bucket before the one of place, an entry that found it
// full, so that find knows where to stop.
func (t *Table) pass(hash uint64, place uint32, n int) {
	p := newPath(hash, len(t.buckets))
	for range t.probes {
		if p.at == int(place/ways) {
			return
		}
		t.buckets[p.at].passed += uint32(n)
		p.next()
	}
}
