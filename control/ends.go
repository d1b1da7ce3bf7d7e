package control

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// nodeLabels are those of the agent's node at a generation of the store.
type nodeLabels struct {
	generation uint64
	list       []string
}

// NodeLabels implements hubble.Peers.
func (a *Agent) NodeLabels() []string {
	generation := a.store.Generation()
	if l := a.labels.Load(); l != nil && l.generation == generation {
		return l.list
	}
	l := &nodeLabels{}
	a.store.Read(func(v store.View) {
		l.generation = v.Generation()
		if n := v.Node(a.cfg.NodeName); n != nil {
			for k, value := range n.Labels {
				l.list = append(l.list, k+"="+value)
			}
		}
	})
	slices.Sort(l.list)
	a.labels.Store(l)
	return l.list
}

// names is what a publish gave names to.
type names struct {
	causes []rule.Cause
}

// ends finds out who is behind addresses, for the observer's goroutine. It
// remembers what it found until the store changes, and pods that have gone for
// a while longer: their last packets are still under way.
type ends struct {
	store *store.Store
	node  string
	known map[netip.Addr]*knownEnd
	pods  map[store.Key]*store.Pod // as they were at generation
	// generation of the store that is known.
	generation uint64
	host       []netip.Addr // the node's own addresses
	hosts      time.Time    // when they were read
	taken      map[uint32]string
	ids        map[string]uint32
	mostIDs    int // until the next sweep
	recent     [recentEnds]recentEnd
}

// recentEnd is an answer of find, which holds as long as the store's generation.
// Those of addresses that have gone are not kept: they hold for a time only.
type recentEnd struct {
	addr       packet.Addr
	id         endpoint.ID
	generation uint64
	end        *observe.End
}

// recentEnds is how many of find's answers stand where they are found without a
// map, by a part of the address.
const recentEnds = 1 << 10

func (e *ends) place(id endpoint.ID, a packet.Addr) *recentEnd {
	h := (a.Lo ^ a.Hi ^ uint64(id)<<40) * 0x9e3779b97f4a7c15
	return &e.recent[h>>32%recentEnds]
}

type knownEnd struct {
	end        *observe.End
	generation uint64
	gone       time.Time // since when nothing has the address; zero: something has
}

const (
	keepGone  = 2 * time.Minute
	mostKnown = 1 << 16
	hostEvery = 10 * time.Second
	fewestIDs = 1 << 12 // are not looked through
)

func newEnds(st *store.Store, node string) *ends {
	return &ends{store: st, node: node, known: map[netip.Addr]*knownEnd{}, pods: map[store.Key]*store.Pod{}, taken: map[uint32]string{}, ids: map[string]uint32{}, mostIDs: fewestIDs}
}

// find returns who is behind an address that may be a local endpoint's.
func (e *ends) find(id endpoint.ID, a packet.Addr) *observe.End {
	generation := e.store.Generation()
	recent := e.place(id, a)
	if recent.generation == generation && recent.end != nil && recent.addr == a && recent.id == id {
		return recent.end
	}
	addr := a.Netip()
	if generation != e.generation {
		e.follow()
	}
	k := e.known[addr]
	if k == nil || k.generation != generation || !k.gone.IsZero() && time.Since(k.gone) > keepGone {
		k = e.look(addr, k)
		k.generation = generation
	}
	if k.end.Endpoint != uint32(id) {
		with := *k.end
		with.Endpoint = uint32(id)
		k.end = &with
	}
	if k.gone.IsZero() && generation == e.generation {
		*recent = recentEnd{a, id, generation, k.end}
	}
	return k.end
}

// follow remembers the pods that have gone since it was called last: what they
// sent may be told of only now, the first word of them included.
func (e *ends) follow() {
	e.store.Read(func(v store.View) {
		changes, ok := v.Since(e.generation)
		e.generation = v.Generation()
		if !ok { // more than the store remembers
			for key := range e.pods {
				e.replace(v, key)
			}
			for p := range v.Pods() {
				e.pods[p.Key()] = p
			}
			return
		}
		for _, c := range changes {
			if c.Pod != (store.Key{}) {
				e.replace(v, c.Pod)
			}
		}
	})
}

// replace notes what a pod is now, and whose addresses were its own.
func (e *ends) replace(v store.View, key store.Key) {
	was, now := e.pods[key], v.Pod(key)
	if now == nil {
		delete(e.pods, key)
	} else {
		e.pods[key] = now
	}
	if was == nil || was == now || was.HostNetwork {
		return
	}
	for _, addr := range was.Addrs() {
		if len(v.PodsAt(addr)) > 0 {
			continue
		}
		if k := e.known[addr]; k == nil || k.end.Pod == "" {
			e.known[addr] = &knownEnd{end: e.pod(v, was), gone: time.Now()}
		} else if k.gone.IsZero() {
			k.gone = time.Now()
		}
	}
}

// look asks the store; was is what was known of the address.
func (e *ends) look(addr netip.Addr, was *knownEnd) *knownEnd {
	var now *observe.End
	e.store.Read(func(v store.View) {
		for _, p := range v.PodsAt(addr) {
			if !p.HostNetwork {
				now = e.pod(v, p)
				return
			}
		}
		if e.isHost(v, addr) {
			now = &observe.End{Identity: observe.IdentityHost, Labels: []string{"reserved:host"}, Node: e.node}
			return
		}
		for n := range v.Nodes() {
			if slices.Contains(n.Addrs, addr) {
				now = &observe.End{Identity: observe.IdentityRemoteNode, Labels: []string{"reserved:remote-node"}, Node: n.Name}
				return
			}
		}
	})
	k := &knownEnd{end: now}
	switch {
	case now != nil:
	case was != nil && was.end.Pod != "" && (was.gone.IsZero() || time.Since(was.gone) <= keepGone):
		k.end, k.gone = was.end, was.gone
		if k.gone.IsZero() {
			k.gone = time.Now()
		}
	default:
		k.end = &observe.End{Identity: observe.IdentityWorld, Labels: []string{"reserved:world"}}
	}
	if len(e.known) >= mostKnown {
		clear(e.known)
	}
	if was != nil && sameEnd(was.end, k.end) {
		k.end = was.end // so that what others derived from it holds on
	}
	e.known[addr] = k
	return k
}

func sameEnd(a, b *observe.End) bool {
	x, y := *a, *b
	x.Endpoint, x.Labels, y.Endpoint, y.Labels = 0, nil, 0, nil
	return x.Identity == y.Identity && x.Pod == y.Pod && x.Namespace == y.Namespace && x.Workload == y.Workload &&
		x.WorkloadKind == y.WorkloadKind && x.Node == y.Node && slices.Equal(a.Labels, b.Labels)
}

func (e *ends) isHost(v store.View, addr netip.Addr) bool {
	if time.Since(e.hosts) > hostEvery {
		if addrs, err := link.HostAddrs(); err == nil {
			e.host, e.hosts = addrs, time.Now()
		}
	}
	return slices.Contains(e.host, addr) || slices.Contains(v.NodeAddrs(e.node), addr)
}

// pod describes a pod in Cilium's words.
func (e *ends) pod(v store.View, p *store.Pod) *observe.End {
	labels := []string{
		"k8s:io.cilium.k8s.policy.cluster=" + filter.DefaultCluster,
		"k8s:io.kubernetes.pod.namespace=" + p.Namespace,
	}
	if p.ServiceAccount != "" {
		labels = append(labels, "k8s:io.cilium.k8s.policy.serviceaccount="+p.ServiceAccount)
	}
	for k, value := range p.Labels {
		labels = append(labels, "k8s:"+k+"="+value)
	}
	for k, value := range v.NamespaceLabels(p.Namespace) {
		labels = append(labels, "k8s:io.cilium.k8s.namespace.labels."+k+"="+value)
	}
	slices.Sort(labels)
	return &observe.End{Identity: e.identity(labels), Namespace: p.Namespace, Pod: p.Name, Labels: labels,
		WorkloadKind: p.Workload.Kind, Workload: p.Workload.Name, Node: p.NodeName}
}

// identity gives equal labels equal numbers, the same on all nodes and after a
// restart but for collisions: above the reserved ones, below 2^24, where
// Cilium's local ones begin.
func (e *ends) identity(labels []string) uint32 {
	const first, end = 256, 1 << 24
	key := strings.Join(labels, ";")
	if id, ok := e.ids[key]; ok {
		return id
	}
	if len(e.ids) >= e.mostIDs {
		e.sweep()
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	id := first + h.Sum32()%(end-first)
	for e.taken[id] != "" {
		id = first + (id-first+1)%(end-first)
	}
	e.taken[id], e.ids[key] = key, id
	return id
}

// sweep forgets the addresses of pods that have gone for long, and the identities
// that no pod has that is known: one that comes back gets its number again, but for
// collisions.
func (e *ends) sweep() {
	ids := e.ids
	e.taken, e.ids = map[uint32]string{}, map[string]uint32{}
	for addr, k := range e.known {
		if !k.gone.IsZero() && time.Since(k.gone) > keepGone {
			delete(e.known, addr)
			continue
		}
		key := strings.Join(k.end.Labels, ";")
		if id, ok := ids[key]; ok {
			e.taken[id], e.ids[key] = key, id
		}
	}
	e.mostIDs = max(fewestIDs, 2*len(e.ids))
}

// End implements observe.Names.
func (a *Agent) End(id endpoint.ID, addr packet.Addr) *observe.End { return a.ends.find(id, addr) }

// Cause implements observe.Names.
func (a *Agent) Cause(id rule.CauseID) rule.Cause {
	n := a.names.Load()
	if int(id) < len(n.causes) {
		return n.causes[id]
	}
	return rule.Cause{}
}

// Nodes implements hubble.Peers.
func (a *Agent) Nodes() map[string]string {
	out := map[string]string{}
	a.store.Read(func(v store.View) {
		for n := range v.Nodes() {
			if len(n.Addrs) > 0 {
				out[n.Name] = n.Addrs[0].String()
			}
		}
	})
	return out
}
