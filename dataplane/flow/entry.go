package flow

import (
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Ref names an entry of a Table, from Insert until Remove.
type Ref uint32

// NoRef is the Ref of no entry.
const NoRef Ref = 0xffffffff

// State is how far a flow has come.
type State uint8

const (
	Free        State = iota // the entry is not in use
	Unreplied                // no packet tracked yet; beyond TCP, no reply yet
	SynSent                  // the initiator's SYN was seen
	SynRecv                  // and its SYN+ACK
	Loose                    // TCP picked up in mid-stream, one side heard so far
	Established              // handshake finished; beyond TCP, replied
	FinWait                  // one side has closed
	Closed                   // both sides have closed, or one has reset
	numStates
)

var stateNames = [numStates]string{
	"free", "unreplied", "syn-sent", "syn-recv", "loose", "established", "fin-wait", "closed",
}

// String returns the lower-case name of the state.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "invalid"
}

// Flags are what the worker remembers about a flow.
type Flags uint16

const (
	Offloaded  Flags = 1 << iota // has an entry in the kernel's flow cache
	NoShortcut                   // may be translated by the host's stack
	Audit                        // allowed only because the deny is an audit
	Log                          // a rule wants the flow reported
	Reported                     // its NewFlow event was written
)

// Entry is one flow, both of its directions. Indices are packet.Sides. The
// worker reads and writes the fields as it likes, except Key and State, which
// Insert and Track keep.
//
// 128 bytes, free of pointers; what each packet needs is in the first 64.
type Entry struct {
	Key        packet.Key
	Initiator  packet.Side // sent the packet that was judged
	State      State
	Flags      Flags
	TCPFlags   [2]uint8 // all that were seen
	resetBy    uint8    // 1 + the Side whose RST closed the flow, else 0
	_          uint8
	LastSeenNs int64
	Gen        [2]uint32 // of the endpoint's rules that admitted the flow

	Slot      [2]endpoint.ID // local endpoint, or None
	Egress    rule.CauseID
	Ingress   rule.CauseID
	CreatedNs int64
	Packets   [2]uint64
	Bytes     [2]uint64
	place     uint32 // in the index: bucket*ways + way; for a free entry, the next free one
	_         uint32
}
