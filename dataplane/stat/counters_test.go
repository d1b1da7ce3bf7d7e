package stat_test

import (
	"sync"
	"testing"
	"unsafe"

	"github.com/sluice-net/sluice/dataplane/stat"
)

func TestCounters(t *testing.T) {
	var c stat.Counters
	c.Add(stat.RxPackets, 3)
	c.Add(stat.RxPackets, 2)
	c.Drop(stat.SpoofedMAC)
	if s := c.Snapshot(); s != (stat.Snapshot{}) {
		t.Errorf("seen before Publish: %+v", s)
	}
	c.Publish()
	c.Add(stat.RxPackets, 1)
	s := c.Snapshot()
	if s.Counts[stat.RxPackets] != 5 || s.Drops[stat.SpoofedMAC] != 1 || s.Dropped() != 1 {
		t.Errorf("published: %+v", s)
	}
	c.Publish()
	if n := c.Snapshot().Counts[stat.RxPackets]; n != 6 {
		t.Errorf("rx %d, want 6", n)
	}
}

func TestSum(t *testing.T) {
	workers := make([]*stat.Counters, 3)
	for i := range workers {
		workers[i] = new(stat.Counters)
		for id := range stat.NumIDs {
			workers[i].Add(id, uint64(id)+uint64(i))
		}
		for r := range stat.NumReasons {
			workers[i].Drop(r)
		}
		workers[i].Publish()
	}
	s := stat.Sum(workers)
	for id := range stat.NumIDs {
		if want := 3*uint64(id) + 3; s.Counts[id] != want {
			t.Errorf("%v: %d, want %d", id, s.Counts[id], want)
		}
	}
	if got, want := s.Dropped(), 3*uint64(stat.NumReasons); got != want {
		t.Errorf("%d drops, want %d", got, want)
	}
}

// Names are the labels of metrics: each has one, and none twice.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	check := func(name string) {
		if name == "" || seen[name] {
			t.Errorf("name %q is empty or taken", name)
		}
		seen[name] = true
	}
	for id := range stat.NumIDs {
		check(id.String())
	}
	for r := range stat.NumReasons {
		check(r.String())
	}
	if got := stat.ID(200).String(); got != "counter(200)" {
		t.Errorf("out of range: %q", got)
	}
	if got := stat.Reason(200).String(); got != "reason(200)" {
		t.Errorf("out of range: %q", got)
	}
}

// Two workers' counters, and a worker's own from what readers read, are at
// least two cache lines apart wherever the allocator puts them.
func TestPadding(t *testing.T) {
	if n, least := unsafe.Sizeof(stat.Counters{}), 2*unsafe.Sizeof(stat.Snapshot{})+3*128; n < least {
		t.Errorf("%d bytes, want %d", n, least)
	}
}

// TestConcurrentReaders is for the race detector; counters never go back.
func TestConcurrentReaders(t *testing.T) {
	var c stat.Counters
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var last uint64
			for {
				n := c.Snapshot().Counts[stat.Bursts]
				if n < last {
					t.Errorf("%d after %d", n, last)
				}
				last = n
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 10000 {
		c.Add(stat.Bursts, 1)
		c.Drop(stat.Policy)
		c.Publish()
	}
	close(done)
	wg.Wait()
	if s := c.Snapshot(); s.Counts[stat.Bursts] != 10000 || s.Drops[stat.Policy] != 10000 {
		t.Errorf("%d bursts, %d drops, want 10000", s.Counts[stat.Bursts], s.Drops[stat.Policy])
	}
}

func TestNoAllocs(t *testing.T) {
	c := new(stat.Counters)
	var s stat.Snapshot
	if n := testing.AllocsPerRun(100, func() {
		c.Add(stat.RxPackets, 1)
		c.Drop(stat.Policy)
		c.Publish()
		s = c.Snapshot()
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if s.Counts[stat.RxPackets] == 0 {
		t.Error("nothing was counted")
	}
}

func BenchmarkAdd(b *testing.B) {
	c := new(stat.Counters)
	for b.Loop() {
		c.Add(stat.RxPackets, 1)
	}
}

// BenchmarkPublish shows eight counters that changed, as a burst leaves them.
func BenchmarkPublish(b *testing.B) {
	c := new(stat.Counters)
	for b.Loop() {
		for id := range stat.ID(8) {
			c.Add(id, 64)
		}
		c.Publish()
	}
}
