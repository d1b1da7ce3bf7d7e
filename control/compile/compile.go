// Package compile turns the policies that concern a node's pods into a
// rule.Set, and then each change of them into a rule.Delta.
//
// Compile is deterministic: a new Compiler gives equal Sets for equal input.
// It walks the policies of the namespaces of local pods and the addresses of
// the pods that these policies name; what concerns neither costs nothing.
// Update costs what has changed: a pod the look-up of its label set and of the
// programs that name it, a policy the programs of the pods that it selects.
// A Compiler belongs to one goroutine.
package compile

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// UnknownPod is the cause of all denials of an endpoint whose pod the store
// doesn't have.
const UnknownPod = "pod not known yet"

// Input is all that a Set depends on.
type Input struct {
	View      store.View
	Endpoints []endpoint.Endpoint
	Node      string                  // this node's name
	NodeAddrs []netip.Addr            // its own addresses, beside what the store has
	Domains   map[string][]netip.Addr // what the domain names in policies resolve to; a list must not change
	Heard     []string                // names in Domains that resolve to something else since the last Input; nil: any may
}

// Config says where counting starts. A restarted agent that keeps the flows of
// its predecessor continues the predecessor's numbers.
type Config struct {
	Generation         uint64 // of the Set before the first
	EndpointGeneration uint32 // last given to an endpoint
}

// Compiler makes Sets from the views of one store.
type Compiler struct {
	cfg       Config
	seed      maphash.Seed
	index     *resolve.Index
	causes    *causes
	endpoints map[endpoint.ID]known
	latest    *builder // of the latest Set
}

// known is what an endpoint's generation stands for.
type known struct {
	namespace, name, uid string
	verdicts             uint64 // hash of all that its verdicts depend on
	generation           uint32
}

// New returns a Compiler that has made no Set yet.
func New(cfg Config) *Compiler {
	return &Compiler{cfg: cfg, seed: maphash.MakeSeed(), index: resolve.NewIndex(),
		causes: newCauses(), endpoints: map[endpoint.ID]known{}}
}

// Compile returns the Set for in. The Set shares nothing that later compiles
// or the store change.
func (c *Compiler) Compile(in Input) *rule.Set {
	c.index.Begin()
	c.causes.begin()
	c.cfg.Generation++
	b := newBuilder(c, in)
	b.ownNode(in)
	b.place(in.Endpoints)
	b.index()
	b.set.Generation = c.cfg.Generation
	set := b.set
	set.Programs = b.programs.list
	b.peers.Emit(&set)
	set.Causes = c.causes.end()
	b.set = set
	b.measure()
	c.latest = b
	return &set
}

// generation keeps an endpoint's number as long as k says the same as before.
func (c *Compiler) generation(id endpoint.ID, k known) known {
	if old, ok := c.endpoints[id]; ok {
		k.generation = old.generation
		if k == old {
			return k
		}
	}
	c.cfg.EndpointGeneration++
	if c.cfg.EndpointGeneration == 0 {
		c.cfg.EndpointGeneration = 1
	}
	k.generation = c.cfg.EndpointGeneration
	return k
}

// builder is what the latest Set was made of.
type builder struct {
	c          *Compiler
	node       string
	generation uint64 // of the store
	view       store.View
	own        []netip.Addr
	ownPeer    []rule.PeerID
	set        rule.Set
	peers      *resolve.Peers

	endpoints []endpoint.Endpoint // by ID
	subjectOf []*subject          // of each endpoint
	subjects  map[subjectKey]*subject
	asked     map[*store.Identity]asked
	local     map[store.Key][]int // endpoints of a pod
	rules     rules
	programs  programs
	users     users
	limits    limits
}

func newBuilder(c *Compiler, in Input) *builder {
	return &builder{c: c, node: in.Node, generation: in.View.Generation(), view: in.View,
		peers:    resolve.NewPeers(in.View, c.index, in.Domains, siteOf(in), c.seed),
		subjects: map[subjectKey]*subject{}, asked: map[*store.Identity]asked{}, rules: rules{}, programs: newPrograms(), users: newUsers()}
}

func siteOf(in Input) resolve.Site { return resolve.Site{Node: in.Node, Addrs: in.NodeAddrs} }

// ownNode notes the addresses of this node, which always reach its pods. It
// reports whether they are others than before.
func (b *builder) ownNode(in Input) (changed bool) {
	own := slices.Concat(in.NodeAddrs, in.View.NodeAddrs(in.Node))
	slices.SortFunc(own, netip.Addr.Compare)
	own = slices.Compact(own)
	if slices.Equal(own, b.own) {
		return false
	}
	b.own, b.ownPeer = own, nil
	if len(own) > 0 {
		b.ownPeer = []rule.PeerID{b.peers.Addrs(own)}
	}
	return true
}

// place finds the subject of each endpoint. It reports whether any endpoint
// has come, gone or changed.
func (b *builder) place(list []endpoint.Endpoint) (changed bool) {
	same := slices.EqualFunc(list, b.endpoints, sameEndpoint)
	if !same {
		list = slices.SortedFunc(slices.Values(list), func(a, b endpoint.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
		same = slices.EqualFunc(list, b.endpoints, sameEndpoint)
	}
	if same {
		return false
	}
	old := b.subjectOf
	b.endpoints, b.subjectOf = list, make([]*subject, len(list))
	b.local = make(map[store.Key][]int, len(list))
	for i := range list {
		b.subjectOf[i] = b.join(&list[i])
		key := store.Key{Namespace: list[i].Namespace, Name: list[i].Name}
		b.local[key] = append(b.local[key], i)
	}
	for _, s := range old {
		b.leave(s)
	}
	return true
}

func sameEndpoint(a, b endpoint.Endpoint) bool {
	return a.ID == b.ID && a.UID == b.UID && a.Name == b.Name && a.Namespace == b.Namespace
}

// identityOf returns nil for an endpoint whose pod is not known.
func (b *builder) identityOf(e *endpoint.Endpoint) *store.Identity {
	key := store.Key{Namespace: e.Namespace, Name: e.Name}
	pod, id := b.view.Pod(key), b.view.PodIdentity(key)
	if id == nil || e.UID != "" && pod.UID != "" && e.UID != pod.UID {
		return nil
	}
	return id
}

// index lists the endpoints with their programs and generations. It reports
// whether any is another than before.
func (b *builder) index() (changed bool) {
	next := make([]rule.Endpoint, len(b.endpoints))
	for i := range b.endpoints {
		e, s := &b.endpoints[i], b.subjectOf[i]
		k := b.c.generation(e.ID, known{e.Namespace, e.Name, e.UID, s.hash, 0})
		b.c.endpoints[e.ID] = k
		next[i] = rule.Endpoint{ID: e.ID, Ingress: s.programs[rule.Ingress], Egress: s.programs[rule.Egress], Generation: k.generation}
	}
	if len(b.c.endpoints) > len(next) {
		for id := range b.c.endpoints {
			if _, there := slices.BinarySearchFunc(next, id, func(e rule.Endpoint, id endpoint.ID) int { return cmp.Compare(e.ID, id) }); !there {
				delete(b.c.endpoints, id)
			}
		}
	}
	if slices.Equal(next, b.set.Endpoints) {
		return false
	}
	b.set.Endpoints = next
	return true
}
