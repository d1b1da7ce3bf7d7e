package kube

import (
	"hash/maphash"
	"maps"
	"sync"
)

// interner makes equal strings and label sets share their memory: pods of one
// Deployment differ in little. It remembers a bounded number, the latest; what
// it has forgotten is merely not shared.
type interner struct {
	mu      sync.Mutex
	strings [1 << 12]string
	sets    [1 << 12]map[string]string
}

var internSeed = maphash.MakeSeed()

func (in *interner) str(s string) string {
	if s == "" {
		return s
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.strLocked(s)
}

func (in *interner) strLocked(s string) string {
	slot := &in.strings[maphash.String(internSeed, s)%uint64(len(in.strings))]
	if *slot != s {
		*slot = s
	}
	return *slot
}

// labels returns a map that may be shared: it must not be changed.
func (in *interner) labels(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	var sum uint64
	for k, v := range m {
		sum += maphash.Comparable(internSeed, [2]string{k, v})
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	slot := &in.sets[sum%uint64(len(in.sets))]
	if !maps.Equal(*slot, m) {
		own := make(map[string]string, len(m))
		for k, v := range m {
			own[in.strLocked(k)] = in.strLocked(v)
		}
		*slot = own
	}
	return *slot
}
