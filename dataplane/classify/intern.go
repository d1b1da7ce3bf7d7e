package classify

import (
	"math/bits"
	"slices"
)

// interner numbers sequences of words: equal sequences get equal numbers,
// dense from 0. The sequences lie one behind the other in one slab.
type interner struct {
	words []uint32
	ends  []uint32 // sequence i is words[ends[i-1]:ends[i]]
	slots []uint32 // open addressing, number+1; 0 is free
}

func (in *interner) len() int { return len(in.ends) }

// at returns sequence i; it is valid until the next add.
func (in *interner) at(i uint32) []uint32 {
	start := uint32(0)
	if i > 0 {
		start = in.ends[i-1]
	}
	return in.words[start:in.ends[i]]
}

// add returns the number of a sequence, a new one if it wasn't seen before.
func (in *interner) add(seq []uint32) uint32 {
	if 2*(len(in.ends)+1) > len(in.slots) {
		in.grow()
	}
	mask := uint64(len(in.slots) - 1)
	for i := hashWords(seq) & mask; ; i = (i + 1) & mask {
		switch n := in.slots[i]; {
		case n == 0:
			in.words = append(in.words, seq...)
			in.ends = append(in.ends, uint32(len(in.words)))
			in.slots[i] = uint32(len(in.ends))
			return in.slots[i] - 1
		case slices.Equal(in.at(n-1), seq):
			return n - 1
		}
	}
}

func (in *interner) grow() {
	in.slots = make([]uint32, max(16, 2*len(in.slots)))
	mask := uint64(len(in.slots) - 1)
	for n := range uint32(len(in.ends)) {
		i := hashWords(in.at(n)) & mask
		for in.slots[i] != 0 {
			i = (i + 1) & mask
		}
		in.slots[i] = n + 1
	}
}

// reset forgets all sequences and keeps the memory.
func (in *interner) reset() {
	in.words, in.ends = in.words[:0], in.ends[:0]
	clear(in.slots)
}

// hashWords needs no secret: control, not a pod, chooses what is interned.
func hashWords(seq []uint32) uint64 {
	h := uint64(len(seq)) + 0x9e3779b97f4a7c15
	for _, w := range seq {
		hi, lo := bits.Mul64(h^uint64(w), 0xd6e8feb86659fd93)
		h = hi ^ lo
	}
	return h ^ h>>32
}

// refiner splits the items 0 to n-1 into the coarsest classes that agree with
// a series of subsets, each in time linear in its size.
type refiner struct {
	class  []uint32 // of each item
	split  []uint32 // class → the class that leaves it in this subset
	stamp  []uint32 // class → the subset for which split is valid
	born   []uint32 // class → the subset that split it off
	parent []uint32 // class → the class that it left
	round  uint32   // the current subset, from 1
}

func (r *refiner) reset(n int) {
	r.class = slices.Grow(r.class[:0], n)[:n]
	clear(r.class)
	r.split, r.stamp, r.born, r.parent = r.split[:0], r.stamp[:0], r.born[:0], r.parent[:0]
	r.round = 0
	r.newClass(0)
}

func (r *refiner) newClass(parent uint32) uint32 {
	r.split = append(r.split, 0)
	r.stamp = append(r.stamp, 0)
	r.born = append(r.born, r.round)
	r.parent = append(r.parent, parent)
	return uint32(len(r.split) - 1)
}

// next begins a new subset and returns its number.
func (r *refiner) next() uint32 {
	r.round++
	return r.round
}

// put adds an item to the current subset; a second time does nothing.
func (r *refiner) put(item uint32) {
	old := r.class[item]
	if r.born[old] == r.round {
		return
	}
	if r.stamp[old] != r.round {
		r.stamp[old] = r.round
		r.split[old] = r.newClass(old)
	}
	r.class[item] = r.split[old]
}
