package store

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
)

// View reads. It is valid inside Store.Read only.
type View struct{ st *state }

// Generation counts the transactions that changed something.
func (v View) Generation() uint64 { return v.st.generation }

// Pod returns a pod, or nil.
func (v View) Pod(key Key) *Pod {
	if e := v.st.pods[key]; e != nil {
		return e.pod
	}
	return nil
}

// PodIdentity returns the identity of a pod: nil for one that is not known or
// uses its node's network.
func (v View) PodIdentity(key Key) *Identity {
	if e := v.st.pods[key]; e != nil {
		return e.id
	}
	return nil
}

// PodsAt returns the pods that have an address, host-network pods among them,
// sorted by namespace and name.
func (v View) PodsAt(a netip.Addr) []*Pod { return v.st.byAddr[a] }

// IdentitiesAt calls visit with the identity of each pod and node that has an
// address, in no order; one may come twice.
func (v View) IdentitiesAt(a netip.Addr, visit func(*Identity)) {
	for _, p := range v.st.byAddr[a] {
		if e := v.st.byNS[p.Namespace].pods[p.Name]; e.id != nil {
			visit(e.id)
		}
	}
	for _, n := range v.st.nodesAt[a] {
		visit(n.id)
	}
}

// PoliciesOf yields what is in force of one object: the valid version before
// the rejected one.
func (v View) PoliciesOf(o policy.Origin) iter.Seq[*policy.Policy] {
	return func(yield func(*policy.Policy) bool) {
		if e := v.st.policies[o]; e != nil {
			for _, p := range e.parts {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// Pods yields all pods, in no order.
func (v View) Pods() iter.Seq[*Pod] {
	return func(yield func(*Pod) bool) {
		for _, e := range v.st.pods {
			if !yield(e.pod) {
				return
			}
		}
	}
}

// Namespace returns a namespace as written, or nil for one that exists only
// through its pods.
func (v View) Namespace(name string) *Namespace { return v.st.namespaces[name] }

// NamespaceLabels returns the labels of a namespace, written or implicit, with
// NameLabel.
func (v View) NamespaceLabels(name string) map[string]string {
	if ns := v.st.byNS[name]; ns != nil {
		return ns.labels
	}
	return nil
}

// Namespaces yields the names of all namespaces, written or implicit.
func (v View) Namespaces() iter.Seq[string] { return maps.Keys(v.st.byNS) }

// Node returns a node, or nil.
func (v View) Node(name string) *Node {
	if e := v.st.nodes[name]; e != nil {
		return e.node
	}
	return nil
}

// Nodes yields all nodes, in no order.
func (v View) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for _, e := range v.st.nodes {
			if e.node != nil && !yield(e.node) {
				return
			}
		}
	}
}

// NodeAddrs returns all that is known of a node's own addresses, sorted and
// unique: the Node object's and those of its host-network pods.
func (v View) NodeAddrs(name string) []netip.Addr {
	if name == "" {
		return nil
	}
	return v.nodeAddrs(name)
}

// UnplacedAddrs returns the addresses of host-network pods of which no node is
// known, sorted and unique.
func (v View) UnplacedAddrs() []netip.Addr { return v.nodeAddrs("") }

func (v View) nodeAddrs(name string) []netip.Addr {
	e := v.st.nodes[name]
	if e == nil {
		return nil
	}
	var out []netip.Addr
	if e.node != nil {
		out = append(out, e.node.Addrs...)
	}
	for _, p := range e.host {
		out = append(out, p.Addrs()...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// IdentitiesSince yields the live identities with an ID above after, by ID.
func (v View) IdentitiesSince(after uint64) iter.Seq[*Identity] {
	return func(yield func(*Identity) bool) {
		i, _ := slices.BinarySearchFunc(v.st.byID, after+1, func(id *Identity, want uint64) int {
			return int(int64(id.ID - want))
		})
		for _, id := range v.st.byID[i:] {
			if id.Live() && !yield(id) {
				return
			}
		}
	}
}

// LastIdentity returns the highest ID given so far.
func (v View) LastIdentity() uint64 { return v.st.nextID }

// NamespaceIdentities yields the live identities of the pods of a namespace,
// in no order.
func (v View) NamespaceIdentities(name string) iter.Seq[*Identity] {
	return func(yield func(*Identity) bool) {
		if ns := v.st.byNS[name]; ns != nil {
			for id := range ns.identities {
				if !yield(id) {
					return
				}
			}
		}
	}
}

// Policies yields what is in force of the policies of a namespace, "" for
// cluster-scoped ones, by origin; of one object the valid version comes before
// the rejected one.
func (v View) Policies(namespace string) iter.Seq[*policy.Policy] {
	return func(yield func(*policy.Policy) bool) {
		for _, e := range v.st.polByNS[namespace] {
			for _, p := range e.parts {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// Replaced reports whether a staged policy would take the place of a policy.
func (v View) Replaced(o policy.Origin) bool { return v.st.replaced[o] > 0 }

// Audit reports whether a policy only reports what it denies: by itself or by
// its namespace.
func (v View) Audit(p *policy.Policy) bool {
	if p.Audit {
		return true
	}
	ns := v.st.namespaces[p.Origin.Namespace]
	return p.Origin.Namespace != "" && ns != nil && ns.Audit
}

// Counts returns how many namespaces, pods, nodes, policies and identities
// there are.
func (v View) Counts() (namespaces, pods, nodes, policies, identities int) {
	for _, e := range v.st.nodes {
		if e.node != nil {
			nodes++
		}
	}
	return len(v.st.byNS), len(v.st.pods), nodes, len(v.st.policies), len(v.st.identities)
}

// NodeIdentity returns the identity of a node, or nil.
func (v View) NodeIdentity(name string) *Identity {
	if e := v.st.nodes[name]; e != nil {
		return e.id
	}
	return nil
}

// AllPolicies yields what is in force of all policies, namespaces in no order.
func (v View) AllPolicies() iter.Seq[*policy.Policy] {
	return func(yield func(*policy.Policy) bool) {
		for ns := range v.st.polByNS {
			for p := range v.Policies(ns) {
				if !yield(p) {
					return
				}
			}
		}
	}
}
