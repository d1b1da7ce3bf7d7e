package control

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-net/sluice/control/link"
	learn "github.com/sluice-net/sluice/control/names"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
)

// resolvers finds out which names a resolver may teach a pod: those of its lookups
// that mean this one. It belongs to the goroutine that hears the pod, and remembers
// what it found until the store changes, or for a while.
type resolvers struct {
	store      *store.Store
	node       string
	learner    *learn.Learner
	lookups    []policy.Lookup
	known      map[netip.Addr][]policy.Name
	keep       time.Duration // known holds for so long at most
	generation uint64
	read       time.Time
	host       []netip.Addr // the node's own addresses
}

// mostResolvers bounds what is remembered: a pod can ask anybody.
const mostResolvers = 64

func newResolvers(st *store.Store, node string, l *learn.Learner, lookups []policy.Lookup) *resolvers {
	r := &resolvers{store: st, node: node, learner: l, lookups: lookups, known: map[netip.Addr][]policy.Name{}, keep: hostEvery}
	for i := range lookups {
		if slices.ContainsFunc(lookups[i].Peers, func(q policy.Peer) bool { return q.Name != nil }) {
			r.keep = time.Second // a name may be learned at any time
		}
	}
	return r
}

// teach returns the names that whoever has an address may teach.
func (r *resolvers) teach(addr netip.Addr) []policy.Name {
	old := time.Since(r.read) > r.keep
	if g := r.store.Generation(); g != r.generation || old || len(r.known) >= mostResolvers {
		clear(r.known)
		r.generation = g
	}
	names, ok := r.known[addr]
	if ok {
		return names
	}
	if old {
		if addrs, err := link.HostAddrs(); err == nil {
			r.host = addrs
		}
		r.read = time.Now()
	}
	site := &resolve.Site{Node: r.node, Addrs: r.host}
	r.store.Read(func(v store.View) {
		ends := append(led(v, addr), addr)
		for i := range r.lookups {
			l := &r.lookups[i]
			means := func(q policy.Peer) bool {
				return slices.ContainsFunc(ends, func(a netip.Addr) bool { return r.means(v, site, &q, a) })
			}
			if l.AnyPeer || slices.ContainsFunc(l.Peers, means) {
				names = append(names, l.Names...)
			}
		}
	})
	r.known[addr] = names
	return names
}

// portDNS is the port at which resolvers are heard.
const portDNS = 53

// led returns where the resolvers' port of an address leads to, if that is a
// Service's.
func led(v store.View, addr netip.Addr) (out []netip.Addr) {
	for s := range v.AllServices() {
		if !slices.Contains(s.Addrs, addr) {
			continue
		}
		for i := range s.Exposed {
			if p := &s.Exposed[i]; p.Port == portDNS {
				for _, to := range v.Ends(s, p) {
					out = append(out, to.Addr())
				}
			}
		}
	}
	return out
}

// means reports whether a peer is the end that has an address.
func (r *resolvers) means(v store.View, site *resolve.Site, q *policy.Peer, addr netip.Addr) bool {
	var ids []*store.Identity
	v.IdentitiesAt(addr, func(id *store.Identity) { ids = append(ids, id) })
	switch {
	case q.Block != nil:
		return resolve.BlockMatches(v, site, q.Block, addr)
	case q.Selector != nil && !q.Selector.NetworkSets():
		return slices.ContainsFunc(ids, func(id *store.Identity) bool { return q.Selector.Matches(&id.Entity) })
	case q.Domain != "":
		return false // of languages without lookups
	}
	var domains map[string][]netip.Addr
	if q.Name != nil {
		domains = map[string][]netip.Addr{}
		for _, e := range r.learner.Entries() {
			domains[e.Name] = append(domains[e.Name], e.Addr)
		}
	}
	return resolve.PlaceMatches(v, site, domains, q, addr, ids)
}
