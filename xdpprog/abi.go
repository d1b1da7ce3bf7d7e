package xdpprog

// The Go side of bpf/abi.h. The layouts are compared with the BTF of the
// compiled objects by a test.

// Addr is struct addr: an IPv6 or v4-mapped address as two big-endian words.
type Addr struct{ Hi, Lo uint64 }

// FlowKey is struct flow_key. dataplane/packet.Key has the same layout.
type FlowKey struct {
	A, B         Addr
	APort, BPort uint16
	Proto        uint8
	_            [3]uint8
}

// Flags of a FlowValue.
const (
	FlowShortcut uint8 = 1 << 0 // both ends are pods of this node, no NAT between
	FlowToPod    uint8 = 1 << 1 // first seen at to-pod: the stack may translate it
	FlowAudit    uint8 = 1 << 2 // allowed only because the deny is an audit
	FlowLog      uint8 = 1 << 3 // a rule wants it reported
)

// Bits of FlowValue.Ended and Note.Ended.
const (
	EndedFinA uint8 = 1 << 0
	EndedFinB uint8 = 1 << 1
	EndedRst  uint8 = 1 << 2
)

// FlowValue is struct flow_value, an allowed flow. Indices are sides.
type FlowValue struct {
	Slot       [2]uint32
	Gen        [2]uint32
	Initiator  uint8
	Flags      uint8
	Ended      uint8
	TCPFlags   [2]uint8
	_          [3]uint8
	LastSeenNs uint64 // CLOCK_MONOTONIC_COARSE
	Packets    [2]uint64
	Bytes      [2]uint64
}

// DenyValue is struct deny_value: what the Sides (bit 0: A, bit 1: B) of a flow
// may not send.
type DenyValue struct {
	Slot      [2]uint32
	Gen       [2]uint32
	SinceNs   uint64
	Packets   uint64
	Bytes     uint64
	Sides     uint8
	Initiator uint8
	_         [6]uint8
}

// Endpoint is struct endpoint; its index in the map is the slot.
type Endpoint struct {
	Ifindex uint32
	Gen     uint32
	MAC     [6]byte
	HostMAC [6]byte
}

// OwnAddr is struct own_addr.
type OwnAddr struct {
	Addr Addr
	Slot uint32
	_    uint32
}

// AdmitKey is struct admit_key: flows from Src to DPort of Dst.
type AdmitKey struct {
	Src, Dst Addr
	DPort    uint16 // 0 for ICMP echo
	Proto    uint8
	Hook     uint8
	_        [4]uint8
}

// AdmitValue is struct admit_value: such flows are allowed.
type AdmitValue struct {
	Slot            [2]uint32 // of Src and Dst
	Gen             [2]uint32
	Egress, Ingress uint32
	Generation      uint64
	Flags           uint8
	_               [7]uint8
}

// NoteKind is enum note_kind.
type NoteKind uint8

const (
	NoteEnd   NoteKind = 0 // a side of an allowed TCP flow has closed
	NoteStart NoteKind = 1 // a flow was admitted in the kernel
)

// Note is struct note, a record of the ring buffer.
type Note struct {
	Key             FlowKey
	Worker          uint32
	Kind            NoteKind
	Ended           uint8
	Initiator       uint8
	Flags           uint8
	Slot            [2]uint32
	Gen             [2]uint32
	Egress, Ingress uint32
	Generation      uint64
	TCPFlags        uint8 // of the packet; in NoteEnd all of the side that answers
	Hook            uint8
	_               [6]uint8
}

// Hook is enum hook.
type Hook uint8

const (
	HookFromPod Hook = 0
	HookToPod   Hook = 1
)

// Verb is enum verb: what deliver does with a frame.
type Verb uint8

const (
	VerbResumeFromPod Verb = 0
	VerbResumeToPod   Verb = 2
	VerbShortcut      Verb = 4
	VerbResumeUplink  Verb = 6
)

const tagBase = 0x40

// ParseTag reads the tag that divert wrote; ok is false for any other frame.
func ParseTag(frame []byte) (hook Hook, worker uint8, slot uint32, ok bool) {
	if len(frame) < 14 || frame[0]&^uint8(HookToPod) != tagBase {
		return 0, 0, 0, false
	}
	slot = uint32(frame[2])<<24 | uint32(frame[3])<<16 | uint32(frame[4])<<8 | uint32(frame[5])
	return Hook(frame[0] - tagBase), frame[1], slot, true
}

// PutTag writes the tag that deliver reads. frame has at least 14 bytes.
func PutTag(frame []byte, v Verb, worker uint8, slot uint32) {
	_ = frame[5]
	frame[0], frame[1] = tagBase|uint8(v), worker
	frame[2], frame[3], frame[4], frame[5] = byte(slot>>24), byte(slot>>16), byte(slot>>8), byte(slot)
}

// Owner returns the worker that owns a flow, as divert chooses it.
func Owner(k *FlowKey, seed uint64, workers uint32) uint32 {
	if workers <= 1 {
		return 0
	}
	h := (seed ^ k.A.Lo) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32 ^ k.B.Lo) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>32 ^ k.A.Hi) * 0x94d049bb133111eb
	h = (h ^ h>>32 ^ k.B.Hi) * 0x9e3779b97f4a7c15
	h = (h ^ h>>32 ^ (uint64(k.APort)<<24 | uint64(k.BPort)<<8 | uint64(k.Proto))) * 0xbf58476d1ce4e5b9
	return uint32((h >> 32) * uint64(workers) >> 32)
}

// Counter is enum counter: what the programs did with packets that they did
// not drop.
type Counter uint32

const (
	CountHit Counter = iota
	CountShortcut
	CountSteered
	CountNeighbour
	CountResumed
	CountDelivered
	CountFailOpen
	CountEndLost
	CountAdmitted
	CountUplinkDenied
	CountUplinkSteered
	CountUplinkPassed
	CountUplinkResumed
	NumCounters
)

var counterNames = [NumCounters]string{
	"hit", "shortcut", "steered", "neighbour", "resumed", "delivered", "fail-open", "end-lost", "admitted",
	"uplink-denied", "uplink-steered", "uplink-passed", "uplink-resumed",
}

// String returns the name that status and metrics use.
func (c Counter) String() string { return counterNames[c] }

// Traffic is struct traffic.
type Traffic struct{ Packets, Bytes uint64 }

// NumTraffic is the number of struct traffic there are: by Hook, and for what
// was denied TrafficDenied further.
const (
	TrafficDenied = 2
	NumTraffic    = 4
)

// NumDropReasons is the number of drop counters (enum drop_reason), which are
// indexed as dataplane/stat.Reason.
const NumDropReasons = 24

// Uplink is struct uplink; its key in the map is the NIC's index.
type Uplink struct {
	Base   uint32 // of its queues' places among the sockets
	Queues uint32
	Room   uint32 // bytes that a frame of the UMEM takes
	MAC    [6]byte
	_      [2]byte
}

// askedBytes is the size of struct asked, a bit a port.
const askedBytes = 1 << 16 / 8

// MaxUplinkSockets bounds the queues of all uplinks together.
const MaxUplinkSockets = 256

// MaxWorkers bounds the number of workers.
const MaxWorkers = 64
