package store

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
)

// NameLabel is the label that every namespace carries its own name under.
const NameLabel = "kubernetes.io/metadata.name"

// Key names an object of a namespace.
type Key struct{ Namespace, Name string }

// String returns namespace/name.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// Namespace is what policy sees of a namespace.
type Namespace struct {
	Name   string
	Labels map[string]string
	Audit  bool // denials of its policies are reported, not enforced
}

// Account is what policy sees of a service account.
type Account struct {
	Namespace, Name string
	Labels          map[string]string
}

// Phase is how far a pod's life has come.
type Phase uint8

const (
	Alive    Phase = iota // Pending, Running or unknown
	Finished              // Succeeded or Failed: its addresses are not its own any more
)

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name     string
	Protocol policy.Protocol
	Port     uint16
}

// Pod is what policy sees of a pod.
type Pod struct {
	Namespace, Name string
	UID             string
	Labels          map[string]string
	ServiceAccount  string
	NodeName        string
	HostNetwork     bool // its addresses are its node's
	Phase           Phase
	IPs             []netip.Addr // unmapped
	Ports           []NamedPort
	Workload        Workload // that made it, if one did: for people, not for policy
}

// Workload is what a user has written to get pods, like a Deployment.
type Workload struct{ Kind, Name string }

// Key returns the pod's key.
func (p *Pod) Key() Key { return Key{p.Namespace, p.Name} }

// Addrs returns the addresses at which the pod can be met: none once it has
// finished.
func (p *Pod) Addrs() []netip.Addr {
	if p.Phase == Finished {
		return nil
	}
	return p.IPs
}

// Equal reports whether p and q are the same to policy.
func (p *Pod) Equal(q *Pod) bool {
	return p.Namespace == q.Namespace && p.Name == q.Name && p.UID == q.UID &&
		p.ServiceAccount == q.ServiceAccount && p.NodeName == q.NodeName &&
		p.HostNetwork == q.HostNetwork && p.Phase == q.Phase && p.Workload == q.Workload &&
		slices.Equal(p.IPs, q.IPs) && slices.Equal(p.Ports, q.Ports) && maps.Equal(p.Labels, q.Labels)
}

// Node is what policy sees of a node.
type Node struct {
	Name   string
	Labels map[string]string
	Addrs  []netip.Addr // unmapped
}

func (n *Node) equal(m *Node) bool {
	return n.Name == m.Name && slices.Equal(n.Addrs, m.Addrs) && maps.Equal(n.Labels, m.Labels)
}

// Identity is all that selectors, named ports included, can tell pods or nodes
// apart by. Its contents never change; a pod that changes gets another one.
// Identities are the unit in which selectors are evaluated.
type Identity struct {
	ID     uint64 // increases with each new Identity; never used again
	Entity policy.Entity
	Ports  []NamedPort // sorted, unique

	key     string
	members map[any]members // owner (*Pod or *Node) → what it adds
	addrSum uint64
	addrs   int
}

type members []netip.Addr

// AddrSum changes, but for a chance of 2^-64, whenever the set of addresses
// that bear the identity does.
func (id *Identity) AddrSum() uint64 { return id.addrSum }

// Live reports whether a pod or node bears the identity.
func (id *Identity) Live() bool { return len(id.members) > 0 }

// HasAddrs reports whether any address bears the identity.
func (id *Identity) HasAddrs() bool { return id.addrs > 0 }

// EachAddr calls visit with each address, in no order; one that two pods claim
// comes twice.
func (id *Identity) EachAddr(visit func(netip.Addr)) {
	for _, m := range id.members {
		for _, a := range m {
			visit(a)
		}
	}
}

// HasPort reports whether the identity has a port of this name, protocol (0:
// any) and number.
func (id *Identity) HasPort(name string, proto policy.Protocol, port uint16) bool {
	for _, p := range id.Ports {
		if p.Name == name && p.Port == port && (proto == 0 || p.Protocol == proto) {
			return true
		}
	}
	return false
}
