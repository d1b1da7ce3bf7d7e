package dataplane

import (
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/flow"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/dataplane/xsk"
	"github.com/sluice-net/sluice/xdpprog"
)

// burstSize is how many packets a worker takes through all stages at once:
// enough to overlap the cache misses of a stage, few enough that the burst's
// headers stay in the L1 and L2 caches.
const burstSize = 64

// judgements is how often a packet may be judged: as one of a new flow, then of one
// that divert admitted under rules that have changed since, then of the next between
// its ports because that one has ended. Each may ask for both directions.
const judgements = 3

// maxDescs bounds the descriptors of a burst: packets may span several.
const maxDescs = 256

// verb is what becomes of a packet.
type verb uint8

const (
	verbDrop     verb = iota
	verbResume        // back to the hook that it was diverted from
	verbShortcut      // straight into the pod of pkt.to
	verbHold          // kept until its release
)

// pkt is a packet on its way through a burst.
type pkt struct {
	desc, descs uint16 // first descriptor in burst.descs, and how many
	hook        event.Hook
	side        packet.Side // of key, that sent it
	verb        verb
	reason      stat.Reason
	slot        endpoint.ID // whose link it was diverted from
	to          endpoint.ID // of a shortcut
	length      uint32      // frame, all descriptors
	ref         flow.Ref
	frame       []byte       // first descriptor; valid until transmit
	copied      bool         // by whoever captures
	bare        bool         // from a pod's own link: its checksum may be unfinished
	from        *uplinkQueue // that it was received from; nil: steering port
	key         packet.Key
	hash        uint64
}

// burst is the working set of one turn of the loop, reused for ever.
type burst struct {
	n      int // packets
	nDescs int
	descs  [maxDescs]xsk.Desc
	pkts   [burstSize]pkt
	hdrs   [burstSize]packet.Header

	// Packets whose flow is looked up, as indices into pkts.
	look   [burstSize]uint8
	late   [burstSize]uint8 // later fragments, looked up last
	keys   [burstSize]packet.Key
	hashes [burstSize]uint64
	refs   [burstSize]flow.Ref

	pending  []judgement
	judged   [judgements * burstSize]judgement // backs pending
	queries  [2 * judgements * burstSize]classify.Query
	verdicts [2 * judgements * burstSize]classify.Verdict
	nQueries int
	inserted bool // a flow, in this burst

	rest [maxDescs][]byte // scratch of finish

	out  [maxDescs]xsk.Desc // to send
	gone [maxDescs]xsk.Desc // to give back

	direct  []endpoint.ID // pods whose direct socket holds packets of this burst
	directs [burstSize]endpoint.ID
}

// judgement is a packet that waits for the classifier.
type judgement struct {
	pkt       uint8
	initiator packet.Side // in whose direction the flow is judged
	fresh     bool        // no live entry: enter the flow if allowed
	stale     bool        // the rules that admitted the flow have changed
	src, dst  endpoint.ID // local ends in that direction
	egress    int16       // indices into queries, or -1
	ingress   int16
	notReady  bool
	service   bool // dst is an address that the host translates, and in place of egress
	toService classify.Verdict
}

// receive takes a burst from a socket's ring and finds the packets in it.
func (w *worker) receive(sock *xsk.Socket) int {
	b := &w.b
	b.n, b.nDescs = 0, 0
	got := sock.Recv(b.descs[:burstSize])
	if got == 0 {
		// While others held all frames its fill ring may have run dry, and then
		// nothing comes by which it would be filled again.
		sock.Refill()
		return 0
	}
	// A packet that the ring cut in two is completed at once: the kernel has
	// already published its other descriptors, or soon will.
	for got < maxDescs && b.descs[got-1].Options&xsk.PktContd != 0 {
		more := sock.Recv(b.descs[got : got+1])
		if more == 0 {
			break
		}
		got += more
	}
	b.nDescs = got
	w.umem.Prefetch(b.descs[:got])
	for i := 0; i < got; {
		p := &b.pkts[b.n]
		*p = pkt{desc: uint16(i), frame: w.umem.Bytes(b.descs[i].Addr, b.descs[i].Len)}
		for {
			p.descs++
			p.length += b.descs[i].Len
			more := b.descs[i].Options&xsk.PktContd != 0
			i++
			if !more || i == got {
				break
			}
		}
		w.counts.Add(stat.RxBytes, uint64(p.length))
		b.n++
	}
	w.counts.Add(stat.RxPackets, uint64(b.n))
	w.counts.Add(stat.Bursts, 1)
	sock.Refill()
	return b.n
}

// process takes the burst through parse, flow look-up, classification and
// judgement. After it every packet has its verb.
//
// Later fragments take their turn when all others are judged: their first
// fragment may be in the same burst.
func (w *worker) process(snap *snapshot) {
	b := &w.b
	b.inserted = false
	n, late := 0, 0
	for i := range b.n {
		progress := dropped
		if b.pkts[i].from == nil {
			progress = w.parse(i)
		} else {
			progress = w.parseUplink(snap, i)
		}
		switch progress {
		case parsed:
			b.look[n] = uint8(i)
			n++
		case parsedLater:
			b.late[late] = uint8(i)
			late++
		}
	}
	w.judge(snap, b.look[:n])
	if late > 0 {
		n = 0
		for _, i := range b.late[:late] {
			p, h := &b.pkts[i], &b.hdrs[i]
			if r := w.frags.Resolve(h, w.nowNs); r != stat.OK {
				w.drop(p, r)
				continue
			}
			p.side = h.KeyTo(&p.key)
			b.look[n] = i
			n++
		}
		w.judge(snap, b.look[:n])
	}
	w.offload.flush(w)
}

// judge decides on the packets that look names.
func (w *worker) judge(snap *snapshot, look []uint8) {
	b := &w.b
	b.pending, b.nQueries = b.judged[:0], 0
	n := len(look)
	for j, i := range look {
		b.keys[j] = b.pkts[i].key
	}
	w.flows.Lookup(b.keys[:n], b.hashes[:n], b.refs[:n])
	for j, i := range look {
		p := &b.pkts[i]
		p.ref, p.hash = b.refs[j], b.hashes[j]
		w.route(snap, int(i))
	}
	// To settle one judgement may ask for another, of the same packet.
	for settled, asked := 0, 0; settled < len(b.pending); {
		snap.table.Classify(b.queries[asked:b.nQueries], b.verdicts[asked:b.nQueries])
		asked = b.nQueries
		for end := len(b.pending); settled < end; settled++ {
			w.settle(snap, &b.pending[settled])
		}
	}
}

// progress is how far parse came with a packet.
type progress uint8

const (
	dropped     progress = iota
	parsed               // its flow can be looked up
	parsedLater          // once its first fragment is known
)

// parse fills in packet i.
func (w *worker) parse(i int) progress {
	b := &w.b
	p, h := &b.pkts[i], &b.hdrs[i]
	hook, _, slot, ok := xdpprog.ParseTag(p.frame)
	if !ok {
		w.drop(p, stat.BadTag)
		return dropped
	}
	p.hook, p.slot = event.Hook(hook), endpoint.ID(slot)
	r := packet.ParseLen(p.frame, int(p.length), h)
	switch {
	case r != stat.OK:
	case h.Tags > 0:
		r = stat.VLAN
	case h.Class.Link() && h.Class != packet.ClassIGMP && !discovers(p, h):
		// divert lets these go by; one that is here had something odd about it.
		r = stat.Malformed
	case h.Frag == packet.FragLater:
		return parsedLater
	case h.ICMPError:
		p.key, p.side = h.InnerKey()
		return parsed
	default:
		p.side = h.KeyTo(&p.key)
		return parsed
	}
	w.drop(p, r)
	return dropped
}

// drop decides that a packet goes no further.
func (w *worker) drop(p *pkt, r stat.Reason) {
	p.verb, p.reason = verbDrop, r
	w.counts.Drop(r)
}

// allow decides how a packet goes on.
func (w *worker) allow(p *pkt, h *packet.Header, to endpoint.ID, shortcut bool) {
	p.verb = verbResume
	if shortcut && to != endpoint.None && p.hook == event.FromPod && h.TTL > 1 {
		p.verb, p.to = verbShortcut, to
	}
}
