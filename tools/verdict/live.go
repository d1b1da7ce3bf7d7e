package verdict

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/sluice-net/sluice/control/store"
)

// Live answers about a store that changes. What it compiled for one state of the
// store is kept until that changes; an answer is about one state of it. It may be
// used by many goroutines, which take turns.
type Live struct {
	store *store.Store

	mu         sync.Mutex // guards what follows
	cluster    *Cluster
	generation uint64
}

// NewLive returns a Live of a store.
func NewLive(st *store.Store) *Live { return &Live{store: st} }

// liveTries is how often an answer is begun anew because the store changed.
const liveTries = 5

// Walk answers a question with all its reasons; ends are as Cluster.End has them,
// domains says what the domain names in policies resolve to.
func (l *Live) Walk(src, dst string, f Flow, domains map[string][]netip.Addr) (*Trace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range liveTries {
		generation := l.store.Generation()
		if l.cluster == nil || l.generation != generation || !maps.EqualFunc(l.cluster.domains, domains, slices.Equal) {
			l.cluster, l.generation = New(l.store, domains), generation
		}
		t, err := l.cluster.walk(src, dst, f)
		if l.store.Generation() == generation {
			return t, err
		}
	}
	return nil, errors.New("pods or policies change faster than they can be looked at")
}

func (c *Cluster) walk(src, dst string, f Flow) (*Trace, error) {
	from, err1 := c.End(src)
	to, err2 := c.End(dst)
	if err := together(err1, err2); err != nil {
		return nil, err
	}
	return c.Walk(from, to, f)
}
