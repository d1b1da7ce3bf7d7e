package stat

import (
	"fmt"
	"sync/atomic"
)

// ID names a counter of a worker other than its drops.
type ID uint8

// The counters. Verdicts are counted where the packet was judged: egress at
// from-pod, ingress at to-pod.
const (
	RxPackets ID = iota // taken from the receive ring
	RxBytes
	TxPackets // put into the transmit ring
	TxBytes
	EgressAllowedPackets
	EgressAllowedBytes
	EgressDeniedPackets
	EgressDeniedBytes
	IngressAllowedPackets
	IngressAllowedBytes
	IngressDeniedPackets
	IngressDeniedBytes
	AuditPackets  // allowed only because the deny is an audit
	LinkPackets   // ARP, ND, MLD and IGMP that went by
	FlowHits      // packets of a flow that the worker knew
	FlowMisses    // packets that had to be classified
	FlowsNew      // flows inserted
	FlowsEnded    // flows removed
	FlowsEvicted  // of these, to make room
	FlowsRejudged // flows whose verdict was older than the endpoint's rules
	CacheWrites   // entries written to the kernel's flow cache
	CacheDeletes  // entries deleted from it
	CacheErrors   // of both, failed
	EventsLost    // records that found no room in a ring
	Bursts        // bursts that held a packet
	Polls         // times that the worker slept
	BusyNs        // time awake
	FillStarved   // times that the kernel ran out of frames to receive into
	WakeupErrors  // failed system calls of receive or transmit
	LookupsHeld   // answers of resolvers that were held back
	LookupsLate   // of these, those whose time was up before they were released
	LookupsUnheld // answers that were not, for want of room
	NumIDs
)

var idNames = [NumIDs]string{
	"rx_packets", "rx_bytes", "tx_packets", "tx_bytes",
	"egress_allowed_packets", "egress_allowed_bytes",
	"egress_denied_packets", "egress_denied_bytes",
	"ingress_allowed_packets", "ingress_allowed_bytes",
	"ingress_denied_packets", "ingress_denied_bytes",
	"audit_packets", "link_packets", "flow_hits", "flow_misses",
	"flows_new", "flows_ended", "flows_evicted", "flows_rejudged",
	"cache_writes", "cache_deletes", "cache_errors", "events_lost",
	"bursts", "polls", "busy_ns", "fill_starved", "wakeup_errors",
	"lookups_held", "lookups_late", "lookups_unheld",
}

// String returns the counter's name, in the form that metrics use.
func (id ID) String() string {
	if id < NumIDs {
		return idNames[id]
	}
	return fmt.Sprintf("counter(%d)", uint8(id))
}

// Snapshot is the value of all counters, of one worker or of several summed.
type Snapshot struct {
	Counts [NumIDs]uint64
	Drops  [NumReasons]uint64 // indexed by Reason; [OK] stays 0
}

// Add adds another snapshot to s.
func (s *Snapshot) Add(o *Snapshot) {
	for i := range s.Counts {
		s.Counts[i] += o.Counts[i]
	}
	for i := range s.Drops {
		s.Drops[i] += o.Drops[i]
	}
}

// Dropped returns the number of packets dropped for any reason.
func (s *Snapshot) Dropped() uint64 {
	var n uint64
	for _, d := range s.Drops {
		n += d
	}
	return n
}

// line is twice the cache line of amd64, whose prefetcher fetches pairs.
const line = 128

// Counters are one worker's. The worker counts in memory of its own, by plain
// additions, and publishes once a burst: an atomic store is a locked exchange
// on amd64 (5 ns), too dear for each packet. Readers see whole bursts.
//
// Add, Drop and Publish belong to the worker; Snapshot is anyone's.
type Counters struct {
	_     [line]byte
	local Snapshot // worker only
	_     [line]byte
	// counts and drops are written by the worker in Publish, read by all.
	counts [NumIDs]atomic.Uint64
	drops  [NumReasons]atomic.Uint64
	_      [line]byte
}

// Add adds n to a counter.
func (c *Counters) Add(id ID, n uint64) { c.local.Counts[id] += n }

// Drop counts one dropped packet.
func (c *Counters) Drop(r Reason) { c.local.Drops[r]++ }

// Publish shows readers what was counted. Only counters that changed are
// stored.
func (c *Counters) Publish() {
	for i := range c.counts {
		if n := c.local.Counts[i]; n != c.counts[i].Load() {
			c.counts[i].Store(n)
		}
	}
	for i := range c.drops {
		if n := c.local.Drops[i]; n != c.drops[i].Load() {
			c.drops[i].Store(n)
		}
	}
}

// Snapshot returns what was published. Each counter is exact and never goes
// back; counters of one burst may be seen before others of the same burst.
func (c *Counters) Snapshot() Snapshot {
	var s Snapshot
	for i := range c.counts {
		s.Counts[i] = c.counts[i].Load()
	}
	for i := range c.drops {
		s.Drops[i] = c.drops[i].Load()
	}
	return s
}

// Sum returns the sum over workers.
func Sum(workers []*Counters) Snapshot {
	var total Snapshot
	for _, c := range workers {
		s := c.Snapshot()
		total.Add(&s)
	}
	return total
}
