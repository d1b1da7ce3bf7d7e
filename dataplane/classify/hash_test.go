package classify

import (
	"math/rand/v2"
	"testing"
)

// TestHashStaysSmall checks that an unlucky seed is replaced, and doesn't
// double the hash.
func TestHashStaysSmall(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		const groups, planned = 2501, 8
		p := newPainter[uint16](1, [2]uint64{rng.Uint64() | 1, rng.Uint64() | 1}, 4)
		p.allot(groups)
		for i := range uint64(groups) {
			first := uint32(len(p.groups))
			p.groups = append(p.groups, make([]uint16, 1<<p.group)...)
			for s := (slot{hi: 0xfd00000000010000 + i, first: first}); !p.insert(&s); {
				p.regrow()
			}
		}
		found := 0
		for _, part := range p.parts {
			for _, s := range part {
				if s.first != 0 {
					found++
				}
			}
		}
		if len(p.parts) != planned || found != groups {
			t.Fatalf("%d groups in %d parts, want %d in %d", found, len(p.parts), groups, planned)
		}
	}
}
