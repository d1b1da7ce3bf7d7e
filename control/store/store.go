// Package store holds what is known of the cluster in Sluice's own types:
// namespaces, pods, nodes and policies, indexed for the compiler. Sources
// write it, in transactions; the compiler and the observers read it.
//
// Pods with the same namespace, labels and named ports share an Identity, so
// that selectors are evaluated once per label set. Writing a pod costs the
// building of its identity's key, a few hundred nanoseconds; writing what is
// already there changes nothing and wakes nobody. Reading copies nothing:
// Read holds a lock that writers wait for.
package store

import (
	"encoding/binary"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/control/policy"
)

// Store is safe for concurrent use.
type Store struct {
	mu   sync.RWMutex
	st   state
	wake chan struct{}

	generation atomic.Uint64 // st's, for those who ask for nothing else
}

type state struct {
	generation uint64
	began      time.Time             // the transaction under way
	namespaces map[string]*Namespace // as written
	byNS       map[string]*nsIndex   // implicit ones too
	pods       map[Key]*podEntry
	nodes      map[string]*nodeEntry
	byAddr     map[netip.Addr][]*Pod // sorted by key
	nodesAt    map[netip.Addr][]*nodeEntry
	local      map[Key]Local
	policies   map[policy.Origin]*policyEntry
	polByNS    map[string][]*policyEntry // sorted by origin; "" holds cluster-scoped ones
	identities map[string]*Identity
	byID       []*Identity // by ID; dead ones are swept out now and then
	dead       int
	nextID     uint64
	seed       maphash.Seed
	outside    outside
	tiers      map[string]*Tier
	replaced   map[policy.Origin]int // by staged policies, how many
	journal    journal
}

type nsIndex struct {
	labels     map[string]string // with NameLabel
	labelsKey  string
	pods       map[string]*podEntry
	identities map[*Identity]struct{}
	accounts   map[string]map[string]string // labels of service accounts
}

type podEntry struct {
	pod  *Pod
	bare *Pod      // as written, where pod has a sandbox's addresses; else nil
	id   *Identity // nil for host-network pods
}

type nodeEntry struct {
	node *Node
	id   *Identity
	host map[Key]*Pod // its host-network pods
}

type policyEntry struct {
	origin         policy.Origin
	good, rejected *policy.Policy
	parts          []*policy.Policy // what is in force, in their tiers
	replaces       policy.Origin
}

// New returns an empty store.
func New() *Store {
	return &Store{wake: make(chan struct{}, 1), st: state{
		namespaces: map[string]*Namespace{}, byNS: map[string]*nsIndex{}, pods: map[Key]*podEntry{},
		nodes: map[string]*nodeEntry{}, byAddr: map[netip.Addr][]*Pod{}, nodesAt: map[netip.Addr][]*nodeEntry{}, local: map[Key]Local{},
		policies: map[policy.Origin]*policyEntry{}, polByNS: map[string][]*policyEntry{},
		identities: map[string]*Identity{}, seed: maphash.MakeSeed(), outside: newOutside(),
		tiers: map[string]*Tier{}, replaced: map[policy.Origin]int{},
	}}
}

// Changed receives after a change; changes that nobody received coalesce. It
// serves one receiver.
func (s *Store) Changed() <-chan struct{} { return s.wake }

// Read calls fn with a consistent view. The view and what it hands out must
// not be kept beyond fn, save for *Pod, *Node, *Namespace and *policy.Policy,
// which are immutable.
func (s *Store) Read(fn func(View)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fn(View{&s.st})
}

// Generation counts the transactions that changed something. It costs a load.
func (s *Store) Generation() uint64 { return s.generation.Load() }

// Update runs fn as one transaction: readers see all of it or nothing. It
// reports whether anything changed.
func (s *Store) Update(fn func(*Tx)) bool {
	s.mu.Lock()
	s.st.began = time.Now()
	tx := Tx{st: &s.st}
	fn(&tx)
	if tx.changed {
		s.st.generation++
		s.st.sweep()
		s.generation.Store(s.st.generation)
	}
	s.mu.Unlock()
	if tx.changed {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return tx.changed
}

// namespace returns the index of a namespace, made when first needed.
func (st *state) namespace(name string) *nsIndex {
	ns := st.byNS[name]
	if ns == nil {
		ns = &nsIndex{pods: map[string]*podEntry{}, identities: map[*Identity]struct{}{}}
		ns.setLabels(name, nil)
		st.byNS[name] = ns
	}
	return ns
}

func (ns *nsIndex) setLabels(name string, labels map[string]string) {
	ns.labels = maps.Clone(labels)
	if ns.labels == nil {
		ns.labels = map[string]string{}
	}
	ns.labels[NameLabel] = name
	ns.labelsKey = string(appendLabels(nil, ns.labels))
}

// dropNamespace forgets the index of a namespace that nothing is left of.
func (st *state) dropNamespace(name string) {
	if ns := st.byNS[name]; ns != nil && len(ns.pods) == 0 && len(ns.accounts) == 0 && st.namespaces[name] == nil {
		delete(st.byNS, name)
	}
}

func (st *state) join(e policy.Entity, nsKey string, ports []NamedPort, owner any, addrs []netip.Addr) *Identity {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, comparePorts)
	ports = slices.Compact(ports)
	key := identityKey(&e, nsKey, ports)
	id := st.identities[key]
	if id == nil {
		st.nextID++
		e.Labels = maps.Clone(e.Labels)
		id = &Identity{ID: st.nextID, Entity: e, Ports: ports, key: key, members: map[any]members{}}
		st.identities[key] = id
		st.byID = append(st.byID, id)
		if e.Kind == policy.KindPod {
			st.namespace(e.Namespace).identities[id] = struct{}{}
		}
	}
	id.members[owner] = addrs
	id.addrs += len(addrs)
	for _, a := range addrs {
		id.addrSum += maphash.Comparable(st.seed, a)
	}
	st.note(Change{Identity: id})
	st.noteAddrs(addrs)
	return id
}

func (st *state) leave(id *Identity, owner any) {
	addrs := id.members[owner]
	delete(id.members, owner)
	id.addrs -= len(addrs)
	for _, a := range addrs {
		id.addrSum -= maphash.Comparable(st.seed, a)
	}
	st.note(Change{Identity: id})
	st.noteAddrs(addrs)
	if len(id.members) > 0 {
		return
	}
	delete(st.identities, id.key)
	st.dead++
	if id.Entity.Kind == policy.KindPod {
		delete(st.namespace(id.Entity.Namespace).identities, id)
	}
}

// sweep drops dead identities once they are the larger half.
func (st *state) sweep() {
	if st.dead > 64 && st.dead > len(st.byID)/2 {
		st.byID = slices.DeleteFunc(st.byID, func(id *Identity) bool { return !id.Live() })
		st.dead = 0
	}
}

func identityKey(e *policy.Entity, nsKey string, ports []NamedPort) string {
	b := make([]byte, 0, 256)
	b = append(b, byte(e.Kind))
	b = appendString(b, e.Namespace)
	b = appendString(b, nsKey)
	b = appendString(b, e.ServiceAccount)
	b = appendLabels(b, e.AccountLabels)
	b = appendLabels(b, e.Labels)
	for _, p := range ports {
		b = appendString(b, p.Name)
		b = append(b, byte(p.Protocol))
		b = strconv.AppendUint(b, uint64(p.Port), 10)
	}
	return string(b)
}

func appendLabels(b []byte, labels map[string]string) []byte {
	var room [16]string
	keys := slices.AppendSeq(room[:0], maps.Keys(labels))
	slices.Sort(keys)
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, k := range keys {
		b = appendString(appendString(b, k), labels[k])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func comparePorts(a, b NamedPort) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if a.Protocol != b.Protocol {
		return int(a.Protocol) - int(b.Protocol)
	}
	return int(a.Port) - int(b.Port)
}
