// Package stat names every reason for which a packet is dropped and counts
// packets per worker without sharing cache lines. The numbers of the reasons
// are shared with the BPF programs (enum drop_reason in xdpprog/bpf/abi.h).
package stat

import "fmt"

// Reason is why a packet was dropped, or OK.
type Reason uint8

// The order is the ABI of the drop counters: append, never reorder.
const (
	OK               Reason = iota
	Policy                  // a policy, or a policy's isolation, denies it
	Truncated               // a header runs past the end of the frame
	Malformed               // a header contradicts itself (version, length, IHL)
	UnknownEtherType        // neither IP nor a neighbour protocol
	VLAN                    // a tag that no pod may send
	BadFragment             // tiny, overlapping the header, or first fragment unknown
	ExtensionHeaders        // too many, out of bounds, or not understood
	SourceRouted            // IPv4 source route, IPv6 type-0 routing header
	SpoofedAddress          // source address is not the pod's
	SpoofedMAC              // source MAC is not the pod's
	NeighbourSpoof          // ARP or ND that speaks for an address of someone else
	Redirect                // ICMP redirect, router advertisement from a pod
	ICMPUnrelated           // ICMP error that quotes no live flow of the receiver
	InvalidState            // TCP packet that fits no state of its flow
	FlowTableFull           // no room for a new flow
	RateLimited             // the pod's budget of new flows is spent
	AgentDown               // no worker serves the queue, and closed is configured
	UnknownEndpoint         // the link belongs to no known pod
	NotReady                // the pod is known, its first rules are not yet
	TxFull                  // no room in a transmit ring
	Oversize                // larger than the frames of the UMEM
	BadTag                  // frame in the steering port that divert did not send
	Misdirected             // frame for a MAC that is not the pod's
	NumReasons
)

var reasonNames = [NumReasons]string{
	"ok", "policy", "truncated", "malformed", "unknown-ethertype", "vlan", "bad-fragment",
	"extension-headers", "source-routed", "spoofed-address", "spoofed-mac", "neighbour-spoof",
	"redirect", "icmp-unrelated", "invalid-state", "flow-table-full", "rate-limited",
	"agent-down", "unknown-endpoint", "not-ready", "tx-full", "oversize", "bad-tag", "misdirected",
}

// String returns the name that metrics and traces use.
func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}
