// Package endpoint describes the pods of this node as plain data: who they
// are, which link carries their traffic and which addresses are theirs. It is
// what control tells the dataplane about a pod; it holds no behaviour.
package endpoint

import "net/netip"

// ID is the dense slot of a local endpoint, 1 to the configured maximum. The
// slot indexes kernel arrays and the classifier's rows. None means "not an
// endpoint of this node".
type ID uint32

// None is the ID of everything that is not a local endpoint.
const None ID = 0

// MAC is an Ethernet address.
type MAC [6]byte

// Link is the host's end of the cable to a pod.
type Link struct {
	Ifindex int    // of the host-side link, in the agent's network namespace
	Name    string // of the host-side link
	MAC     MAC    // the pod's own address
	HostMAC MAC    // of the host-side link
	MTU     int    // of the host-side link, bytes
}

// Endpoint is one pod of this node.
type Endpoint struct {
	ID        ID
	Namespace string
	Name      string
	UID       string
	Addrs     []netip.Addr // the pod's own, all families, unmapped
	LinkLocal []netip.Addr // the pod's own addresses of fe80::/10
	Link      Link
}

// String returns namespace/name.
func (e Endpoint) String() string { return e.Namespace + "/" + e.Name }
