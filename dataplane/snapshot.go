package dataplane

import (
	"math/bits"
	"net/netip"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// snapshot is all that a worker judges by. It is immutable; a worker loads it
// once a burst.
type snapshot struct {
	table      *classify.Table // nil before the first policies
	generation uint64
	local      []local // by slot; [0] is no endpoint
	addrs      addrTable
	host       addrTable // the node's own addresses: all of them endpoint 1
	services   serviceTable
	learning   bool // some endpoint learns
	released   int  // how many endpoints have gone
}

// local is an endpoint as the workers see it.
type local struct {
	gen             uint32 // of its rules, as in the kernel's map; 0: not ready
	born            uint32 // the first that could be of this pod's rules
	ingress, egress classify.Row
	mac, hostMAC    endpoint.MAC
	ifindex         int           // of its host-side link
	learns          bool          // names from the answers of resolvers
	own             []packet.Addr // may be sources of its packets
	answers         protocols     // for Services, as one of their backends
}

func (l *local) owns(a packet.Addr) bool {
	for i := range l.own {
		if l.own[i] == a {
			return true
		}
	}
	return false
}

// endpoint returns the endpoint of a slot; an unknown slot has none of its
// properties and gen 0.
func (s *snapshot) endpoint(slot endpoint.ID) *local {
	if int(slot) < len(s.local) {
		return &s.local[slot]
	}
	return &s.local[0]
}

// hears reports whether an address may be the destination of packets to the endpoint:
// its own, those that are many's, and IPv6's of the link, of which it has one that is
// not known always.
func (l *local) hears(a packet.Addr) bool {
	const broadcast = 0xffffffff
	return l.owns(a) || a.IsMulticast() || a.Hi != 0 && a.IsLinkLocal() || a == packet.AddrV4(broadcast)
}

// addrTable maps the addresses of local pods to slots: open addressing, at
// most half full, no pointers. 3 to 5 ns a look-up.
type addrTable struct {
	slots []addrSlot
	shift uint8
	seed  uint64
}

type addrSlot struct {
	addr packet.Addr
	slot endpoint.ID
}

func newAddrTable(seed uint64, entries []addrSlot) addrTable {
	size := 1 << bits.Len(uint(2*len(entries)|1))
	t := addrTable{slots: make([]addrSlot, size), shift: uint8(64 - bits.TrailingZeros(uint(size))), seed: seed | 1}
	for _, e := range entries {
		for i := t.index(e.addr); ; i = (i + 1) & (size - 1) {
			if t.slots[i].slot == endpoint.None {
				t.slots[i] = e
				break
			}
		}
	}
	return t
}

func newHostTable(seed uint64, own []netip.Addr) addrTable {
	entries := make([]addrSlot, len(own))
	for i, a := range own {
		entries[i] = addrSlot{packet.AddrFrom(a), 1}
	}
	return newAddrTable(seed, entries)
}

func (t *addrTable) index(a packet.Addr) int {
	hi, lo := bits.Mul64(a.Lo^t.seed, a.Hi^0x9e3779b97f4a7c15)
	return int(((hi ^ lo ^ a.Lo) * 0x9e3779b97f4a7c15) >> t.shift)
}

// lookup returns the slot of the local pod with address a, or None.
func (t *addrTable) lookup(a packet.Addr) endpoint.ID {
	for i := t.index(a); ; i = (i + 1) & (len(t.slots) - 1) {
		e := &t.slots[i]
		if e.slot == endpoint.None || e.addr == a {
			return e.slot
		}
	}
}
