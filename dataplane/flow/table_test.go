package flow_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
)

func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(flow.Entry{}); n != 128 {
		t.Errorf("entry of %d bytes, want two cache lines", n)
	}
	if n := unsafe.Offsetof(flow.Entry{}.Slot); n != 64 {
		t.Errorf("first line ends at %d, want 64", n)
	}
}

// TestTableAgainstMap drives a table and a map with the same random steps.
func TestTableAgainstMap(t *testing.T) {
	for _, capacity := range []int{1, 2, 7, 31, 64, 1000, 20000} {
		t.Run(fmt.Sprint(capacity), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(capacity)))
			tab := newTable(t, capacity)
			want := map[packet.Key]flow.Ref{}
			pool := make([]packet.Key, capacity*2)
			for i := range pool {
				pool[i] = randomKey(r, packet.ProtoTCP)
			}
			var evicted flow.Entry
			for step := range max(40000, capacity*10) {
				k := pool[r.IntN(len(pool))]
				ref, known := want[k]
				switch {
				case known && r.IntN(3) == 0:
					tab.Remove(ref)
					delete(want, k)
				case !known:
					ref, ok := tab.Insert(&k, tab.Hash(&k), second, &evicted)
					if !ok {
						t.Fatalf("step %d: refused at %d of %d, all evictable", step, tab.Len(), capacity)
					}
					if (evicted.State != flow.Free) != (len(want) == capacity) {
						t.Fatalf("step %d: evicted %v at %d of %d", step, evicted.State, len(want), capacity)
					}
					if evicted.State != flow.Free {
						if _, ok := want[evicted.Key]; !ok {
							t.Fatalf("step %d: evicted a flow that was not there", step)
						}
						delete(want, evicted.Key)
					}
					want[k] = ref
				}
				if tab.Len() != len(want) {
					t.Fatalf("step %d: %d flows, want %d", step, tab.Len(), len(want))
				}
				if step%(capacity+100) == 0 {
					compare(t, tab, pool, want)
				}
			}
			compare(t, tab, pool, want)
			for _, ref := range want {
				tab.Remove(ref)
			}
			compare(t, tab, pool, nil)
		})
	}
}

// compare looks every key of pool up, in batches of odd sizes.
func compare(t *testing.T, tab *flow.Table, pool []packet.Key, want map[packet.Key]flow.Ref) {
	t.Helper()
	refs, hashes := make([]flow.Ref, 61), make([]uint64, 61)
	for from := 0; from < len(pool); from += 61 {
		batch := pool[from:min(from+61, len(pool))]
		tab.Lookup(batch, hashes, refs)
		for i, k := range batch {
			w, ok := want[k]
			if !ok {
				w = flow.NoRef
			}
			if refs[i] != w || tab.Find(&k) != w {
				t.Fatalf("key %v: lookup %d, find %d, want %d", k, refs[i], tab.Find(&k), w)
			}
			if hashes[i] != tab.Hash(&k) {
				t.Fatalf("key %v: hash %x, want %x", k, hashes[i], tab.Hash(&k))
			}
			if ok && tab.At(w).Key != k {
				t.Fatalf("entry %d holds %v, want %v", w, tab.At(w).Key, k)
			}
		}
	}
}

func TestRemoveTwice(t *testing.T) {
	tab := newTable(t, 8)
	ks := keys(3, packet.ProtoUDP)
	a := insert(t, tab, ks[0], 1)
	insert(t, tab, ks[1], 1)
	tab.Remove(a)
	tab.Remove(a)
	if tab.Len() != 1 {
		t.Fatalf("%d flows, want 1", tab.Len())
	}
	b, c := insert(t, tab, ks[0], 1), insert(t, tab, ks[2], 1)
	if b == c {
		t.Errorf("two flows share entry %d", b)
	}
}

// TestRemovedIsNotFound takes keys of one bucket whose fingerprints are the least,
// which differ by a bit from that of an empty place.
func TestRemovedIsNotFound(t *testing.T) {
	tab := newTable(t, 4)
	var ks []packet.Key
	for _, k := range keys(1<<18, packet.ProtoTCP) {
		if tab.Hash(&k)&0xffff < 4 {
			ks = append(ks, k)
		}
	}
	for i := range ks[1:] {
		a := insert(t, tab, ks[i], 1)
		tab.Remove(insert(t, tab, ks[i+1], 1))
		if r := tab.Find(&ks[i+1]); r != flow.NoRef {
			t.Errorf("found %v, removed, as entry %d", ks[i+1], r)
		}
		var hash [1]uint64
		var r [1]flow.Ref
		if tab.Lookup(ks[i+1:i+2], hash[:], r[:]); r[0] != flow.NoRef {
			t.Errorf("looked up %v, removed, as entry %d", ks[i+1], r[0])
		}
		tab.Remove(a)
	}
}

func TestPressure(t *testing.T) {
	tab := newTable(t, 4)
	for i, k := range keys(4, packet.ProtoUDP) {
		if got, want := tab.Pressure(), float64(i)/4; got != want {
			t.Errorf("pressure %v, want %v", got, want)
		}
		insert(t, tab, k, 1)
	}
	if tab.Len() != 4 || tab.Cap() != 4 {
		t.Errorf("%d of %d flows, want 4 of 4", tab.Len(), tab.Cap())
	}
}

func TestConfigValidate(t *testing.T) {
	if err := flow.Default().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
	err := flow.Config{}.Validate()
	if err == nil {
		t.Fatal("zero config is valid")
	}
	for _, field := range []string{
		"capacity", "tcp syn", "tcp loose", "tcp established", "tcp fin-wait",
		"tcp closed", "udp", "udp stream", "icmp", "other",
	} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("zero config: %q is not reported", field)
		}
	}
	if _, err := flow.New(flow.Config{}, hasher); err == nil {
		t.Error("New accepts a zero config")
	}
}
