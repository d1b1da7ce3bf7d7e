// Package event carries what the workers decided to whoever listens: one
// record a verdict, written by a worker to its own single-producer ring and
// read by one consumer. Writing never blocks; what doesn't fit is counted.
package event

import (
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// Kind is what happened to a flow.
type Kind uint8

const (
	NewFlow Kind = iota // first packet judged
	Denied              // a packet was dropped
	Changed             // a live flow was judged anew, with another result
	Ended               // the flow ended or was idle for too long
	Passed              // a packet of an allowed flow; of captures only, never in a Ring
)

// Hook is where a packet was judged.
type Hook uint8

const (
	FromPod Hook = iota // on its way out of a pod
	ToPod               // on its way into a pod
	InHost              // where the host had translated it, by the host itself
)

// Record is one event, fixed size and free of pointers: two cache lines, of which
// that of a flow that did not end fills one and a half.
type Record struct {
	TimeNs     int64 // CLOCK_REALTIME at the start of the burst
	Key        packet.Key
	Src, Dst   endpoint.ID // local endpoints, or None
	Egress     rule.CauseID
	Ingress    rule.CauseID
	Generation uint64      // of the Set that judged
	Suppressed uint32      // packets denied likewise since the last Denied record, that have none
	ICMP       uint16      // type<<8|code of the packet, for ICMP and ICMPv6
	Side       packet.Side // which end of Key sent the packet that was judged
	Kind       Kind
	Hook       Hook
	Allowed    bool
	Audit      bool // Allowed only because the deny is an audit
	// Which side's deny that was; both false where the worker doesn't know any
	// more (flows that the kernel opened, ends).
	AuditEgress, AuditIngress bool
	Reply                     bool // the packet ran against the direction of its flow
	Reason                    stat.Reason
	TCPFlags                  uint8
	Packets                   [2]uint64
	Bytes                     [2]uint64 // by Side, in Ended records
	DurationNs                int64     // in Ended records
}

// Clear makes all fields 0.
func (r *Record) Clear() { *r = Record{} }

// Interest says which records someone wants: one bit a Kind. What nobody wants
// is not generated, and so not lost either. Records of what is not allowed,
// Changed ones among them, have the bit of Denied.
type Interest uint32

// What there is to be interested in.
const (
	WantNew     Interest = 1 << NewFlow
	WantDenied  Interest = 1 << Denied
	WantChanged Interest = 1 << Changed
	WantEnded   Interest = 1 << Ended
	WantPassed  Interest = 1 << Passed // of captures
	WantAll              = WantNew | WantDenied | WantChanged | WantEnded
)

// Wants reports whether records like r are wanted.
func (i Interest) Wants(r *Record) bool { return i.WantsKind(r.Kind, r.Allowed) }

// WantsKind reports whether records of a kind are wanted, of what is allowed or
// not.
func (i Interest) WantsKind(k Kind, allowed bool) bool {
	if !allowed {
		return i&WantDenied != 0
	}
	return i>>k&1 != 0
}
