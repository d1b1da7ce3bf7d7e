package store

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

// Tx writes. It is valid inside Store.Update only. What is handed to it
// belongs to the store from then on and must not be changed.
type Tx struct {
	st      *state
	changed bool
}

// View returns the state as the transaction has it so far.
func (tx *Tx) View() View { return View{tx.st} }

// SetNamespace adds or replaces a namespace.
func (tx *Tx) SetNamespace(ns *Namespace) {
	old := tx.st.namespaces[ns.Name]
	if old != nil && old.Audit == ns.Audit && maps.Equal(old.Labels, ns.Labels) {
		return
	}
	tx.changed = true
	tx.st.namespaces[ns.Name] = ns
	if ns.Audit != (old != nil && old.Audit) {
		tx.st.note(Change{Audit: ns.Name})
	}
	tx.relabel(ns.Name, ns.Labels)
}

// DeleteNamespace removes a namespace; pods that it still has stay, in an
// implicit one.
func (tx *Tx) DeleteNamespace(name string) {
	if tx.st.namespaces[name] == nil {
		return
	}
	tx.changed = true
	if tx.st.namespaces[name].Audit {
		tx.st.note(Change{Audit: name})
	}
	delete(tx.st.namespaces, name)
	tx.relabel(name, nil)
	tx.st.dropNamespace(name)
}

func (tx *Tx) relabel(name string, labels map[string]string) {
	ns := tx.st.namespace(name)
	before := ns.labelsKey
	ns.setLabels(name, labels)
	if ns.labelsKey == before {
		return
	}
	if len(tx.st.outside.sets) > 0 {
		tx.st.note(Change{NetworkSets: true})
	}
	tx.rejoin(ns, func(*Pod) bool { return true })
}

// rejoin gives pods of a namespace the identities that they have by now.
func (tx *Tx) rejoin(ns *nsIndex, which func(*Pod) bool) {
	for _, e := range ns.pods {
		if e.id != nil && which(e.pod) {
			tx.st.leave(e.id, e.pod)
			e.id = tx.st.joinPod(ns, e.pod)
			tx.st.note(Change{Pod: e.pod.Key()})
		}
	}
}

// SetAccount gives a service account labels. One without is not kept: its name
// is known from its pods.
func (tx *Tx) SetAccount(a *Account) {
	if len(a.Labels) == 0 {
		tx.DeleteAccount(Key{a.Namespace, a.Name})
		return
	}
	ns := tx.st.namespace(a.Namespace)
	if maps.Equal(ns.accounts[a.Name], a.Labels) {
		return
	}
	tx.changed = true
	if ns.accounts == nil {
		ns.accounts = map[string]map[string]string{}
	}
	ns.accounts[a.Name] = a.Labels
	tx.rejoin(ns, func(p *Pod) bool { return p.ServiceAccount == a.Name })
}

// DeleteAccount forgets a service account; pods that run as it stay.
func (tx *Tx) DeleteAccount(key Key) {
	ns := tx.st.byNS[key.Namespace]
	if ns == nil {
		return
	}
	if _, ok := ns.accounts[key.Name]; !ok {
		return
	}
	tx.changed = true
	delete(ns.accounts, key.Name)
	tx.rejoin(ns, func(p *Pod) bool { return p.ServiceAccount == key.Name })
	tx.st.dropNamespace(key.Namespace)
}

// SetPod adds or replaces a pod.
func (tx *Tx) SetPod(p *Pod) {
	key := p.Key()
	p, bare := tx.st.localize(p)
	old := tx.st.pods[key]
	if old != nil && old.pod.Equal(p) {
		old.bare = bare
		return
	}
	tx.changed = true
	tx.st.note(Change{Pod: key})
	// Joining first keeps an identity alive that only this pod has.
	ns := tx.st.namespace(p.Namespace)
	e := &podEntry{pod: p, bare: bare}
	if p.HostNetwork {
		tx.st.node(p.NodeName).host[key] = p
		tx.st.noteHost(p)
	} else {
		e.id = tx.st.joinPod(ns, p)
	}
	if old != nil {
		tx.unlink(old, p)
	}
	ns.pods[p.Name] = e
	tx.st.pods[key] = e
	for _, a := range p.Addrs() {
		tx.st.byAddr[a] = insertPod(tx.st.byAddr[a], p)
	}
}

// DeletePod removes a pod.
func (tx *Tx) DeletePod(key Key) {
	e := tx.st.pods[key]
	if e == nil {
		return
	}
	tx.changed = true
	tx.st.note(Change{Pod: key})
	tx.unlink(e, nil)
	delete(tx.st.pods, key)
	delete(tx.st.namespace(key.Namespace).pods, key.Name)
	tx.st.dropNamespace(key.Namespace)
}

// unlink takes a pod out of all indices; by is what takes its place, if
// anything does.
func (tx *Tx) unlink(e *podEntry, by *Pod) {
	if e.pod.HostNetwork {
		tx.st.noteHost(e.pod)
	}
	if e.id != nil {
		tx.st.leave(e.id, e.pod)
	} else if n := tx.st.nodes[e.pod.NodeName]; n != nil && n.host[e.pod.Key()] != by {
		delete(n.host, e.pod.Key())
		tx.st.dropNode(e.pod.NodeName)
	}
	for _, a := range e.pod.Addrs() {
		left := slices.DeleteFunc(slices.Clone(tx.st.byAddr[a]), func(p *Pod) bool { return p == e.pod })
		if len(left) == 0 {
			delete(tx.st.byAddr, a)
		} else {
			tx.st.byAddr[a] = left
		}
	}
}

// SetNode adds or replaces a node.
func (tx *Tx) SetNode(n *Node) {
	e := tx.st.node(n.Name)
	if e.node != nil && e.node.equal(n) {
		return
	}
	tx.changed = true
	old, oldID := e.node, e.id
	tx.st.placeNode(e, n)
	e.id = tx.st.join(policy.Entity{Kind: policy.KindNode, Labels: n.Labels}, "", nil, n, n.Addrs)
	if oldID != nil {
		tx.st.leave(oldID, old)
	}
}

// DeleteNode removes a node.
func (tx *Tx) DeleteNode(name string) {
	e := tx.st.nodes[name]
	if e == nil || e.node == nil {
		return
	}
	tx.changed = true
	tx.st.leave(e.id, e.node)
	tx.st.placeNode(e, nil)
	e.id = nil
	tx.st.dropNode(name)
}

// SetPolicy adds or replaces a policy. A rejected one is put beside the last
// valid version of the same object, if there is one; a valid one replaces
// both.
func (tx *Tx) SetPolicy(p *policy.Policy) {
	e := tx.st.policies[p.Origin]
	if e == nil {
		e = &policyEntry{origin: p.Origin}
		tx.st.policies[p.Origin] = e
		list := tx.st.polByNS[p.Origin.Namespace]
		i, _ := slices.BinarySearchFunc(list, p.Origin, func(e *policyEntry, o policy.Origin) int { return e.origin.Compare(o) })
		tx.st.polByNS[p.Origin.Namespace] = slices.Insert(list, i, e)
	}
	if p.Rejected {
		if e.rejected != nil && reflect.DeepEqual(e.rejected, p) {
			return
		}
		e.rejected = p
	} else {
		if e.good != nil && e.rejected == nil && reflect.DeepEqual(e.good, p) {
			return
		}
		e.good, e.rejected = p, nil
	}
	tx.changed = true
	tx.st.note(Change{Policy: p.Origin})
	tx.replaced(e.replaces, -1)
	e.settle(tx.st)
	e.replaces = replaces(e)
	tx.replaced(e.replaces, 1)
}

// replaces returns what a staged policy stands in for.
func replaces(e *policyEntry) policy.Origin {
	for _, p := range e.parts {
		if p.Replaces != (policy.Origin{}) {
			return p.Replaces
		}
	}
	return policy.Origin{}
}

// replaced counts by how many staged policies a policy is replaced.
func (tx *Tx) replaced(o policy.Origin, by int) {
	if o == (policy.Origin{}) {
		return
	}
	if tx.st.replaced[o] += by; tx.st.replaced[o] == 0 {
		delete(tx.st.replaced, o)
	}
	tx.st.note(Change{Policy: o})
}

// DeletePolicy removes a policy with all of its versions.
func (tx *Tx) DeletePolicy(o policy.Origin) {
	e := tx.st.policies[o]
	if e == nil {
		return
	}
	tx.changed = true
	tx.st.note(Change{Policy: o})
	tx.replaced(e.replaces, -1)
	delete(tx.st.policies, o)
	left := slices.DeleteFunc(tx.st.polByNS[o.Namespace], func(x *policyEntry) bool { return x == e })
	if len(left) == 0 {
		delete(tx.st.polByNS, o.Namespace)
	} else {
		tx.st.polByNS[o.Namespace] = left
	}
}

func (st *state) joinPod(ns *nsIndex, p *Pod) *Identity {
	return st.join(policy.Entity{Kind: policy.KindPod, Namespace: p.Namespace, NamespaceLabels: ns.labels,
		Labels: p.Labels, ServiceAccount: p.ServiceAccount, AccountLabels: ns.accounts[p.ServiceAccount]}, ns.labelsKey, p.Ports, p, p.Addrs())
}

func (st *state) node(name string) *nodeEntry {
	e := st.nodes[name]
	if e == nil {
		e = &nodeEntry{host: map[Key]*Pod{}}
		st.nodes[name] = e
	}
	return e
}

// placeNode gives an entry another node, and the addresses theirs.
func (st *state) placeNode(e *nodeEntry, n *Node) {
	st.note(Change{Nodes: true})
	if e.node != nil {
		for _, a := range e.node.Addrs {
			left := slices.DeleteFunc(slices.Clone(st.nodesAt[a]), func(x *nodeEntry) bool { return x == e })
			if len(left) == 0 {
				delete(st.nodesAt, a)
			} else {
				st.nodesAt[a] = left
			}
		}
	}
	if e.node = n; n != nil {
		for _, a := range n.Addrs {
			if !slices.Contains(st.nodesAt[a], e) {
				st.nodesAt[a] = append(st.nodesAt[a], e)
			}
		}
	}
}

func (st *state) dropNode(name string) {
	if e := st.nodes[name]; e != nil && e.node == nil && len(e.host) == 0 {
		delete(st.nodes, name)
	}
}

// insertPod keeps the pods of an address sorted by key; it never changes the
// slice that it is given.
func insertPod(pods []*Pod, p *Pod) []*Pod {
	i, _ := slices.BinarySearchFunc(pods, p, func(a, b *Pod) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	out := make([]*Pod, 0, len(pods)+1)
	return append(append(append(out, pods[:i]...), p), pods[i:]...)
}
