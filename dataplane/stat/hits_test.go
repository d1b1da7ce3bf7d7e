package stat_test

import (
	"maps"
	"sync"
	"testing"

	"github.com/sluice-net/sluice/dataplane/stat"
)

func hits(h *stat.Hits) map[uint32]stat.Hit {
	got := map[uint32]stat.Hit{}
	h.Each(func(id uint32, hit stat.Hit) { got[id] = hit })
	return got
}

func TestHits(t *testing.T) {
	var h stat.Hits
	h.Count(0, 3, stat.Allowed, 1, 5) // no room yet: nobody knows the cause
	h.Flush()
	if got := hits(&h); len(got) > 0 {
		t.Errorf("counted without room: %v", got)
	}
	h.Grow(300)
	h.Count(0, 0, stat.Allowed, 1, 10) // nobody
	h.Count(0, 3, stat.Allowed, 1, 10)
	h.Count(1, 299, stat.Audited, 2, 10)
	if got := hits(&h); len(got) > 0 {
		t.Errorf("seen before Flush: %v", got)
	}
	h.Count(0, 3, stat.Allowed, 1, 11)
	h.Count(0, 3, stat.Denied, 7, 12)
	h.Flush()
	h.Grow(1000) // what was counted stays
	h.Count(1, 999, stat.Denied, 1, 13)
	h.Grow(10) // and it never shrinks
	h.Flush()
	h.Count(1, 5000, stat.Denied, 1, 14) // not published
	h.Flush()
	want := map[uint32]stat.Hit{
		3:   {Allowed: 2, Denied: 7, LastNs: 12},
		299: {Audited: 2, LastNs: 10},
		999: {Denied: 1, LastNs: 13},
	}
	if got := hits(&h); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestHitsConcurrently is for the race detector: one worker counts, another
// goroutine makes room, a third reads; nothing is lost.
func TestHitsConcurrently(t *testing.T) {
	var h stat.Hits
	h.Grow(1)
	const total = 20000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			h.Grow(i * 100)
		}
	})
	wg.Go(func() {
		var last uint64
		for last < total {
			got := hits(&h)[7].Denied
			if got < last {
				t.Errorf("%d after %d", got, last)
				return
			}
			last = got
		}
	})
	for i := range total {
		h.Count(i&1, 7, stat.Denied, 1, 1)
		if i%64 == 0 {
			h.Flush()
		}
	}
	h.Flush()
	wg.Wait()
}

func TestHitsDoNotAllocate(t *testing.T) {
	h := new(stat.Hits)
	h.Grow(512)
	var id uint32
	if n := testing.AllocsPerRun(100, func() {
		for range 64 {
			id = id%511 + 1
			h.Count(0, id, stat.Allowed, 1, 1)
			h.Count(1, 1, stat.Denied, 1, 1)
		}
		h.Flush()
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// BenchmarkHits counts the same cause for a burst of 64, and different ones.
func BenchmarkHits(b *testing.B) {
	for name, causes := range map[string]uint32{"same": 1, "different": 64} {
		b.Run(name, func(b *testing.B) {
			h := new(stat.Hits)
			h.Grow(65)
			n := uint32(0)
			for b.Loop() {
				h.Count(0, n%causes+1, stat.Denied, 1, 1)
				if n++; n%64 == 0 {
					h.Flush()
				}
			}
		})
	}
}
