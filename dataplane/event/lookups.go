package event

import (
	"sync/atomic"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// Ticket names a frame that a worker holds back. The zero Ticket names none.
type Ticket struct {
	Worker uint16
	Number uint64 // from 1
}

// Lookup is a packet of a pod's conversation with a resolver.
type Lookup struct {
	Pod    endpoint.ID // that asks
	Answer bool        // towards the pod
	Held   Ticket      // set if the frame waits for its release
	Key    packet.Key
	Side   packet.Side // that sent it
	TimeNs int64       // CLOCK_REALTIME at the start of the burst

	// Of TCP: where the payload stands in its stream, and the flags.
	Seq      uint32
	TCPFlags uint8
	// Whole: Data is the whole payload, of a packet that is no first fragment.
	Whole bool
	Data  []byte // payload; valid until the reader is done with it
}

// Sizes of a LookupRing: it holds a burst of answers while its reader is busy. A
// pod has a share of it, lest one that floods its resolver keeps others from
// learning.
const (
	lookups     = 256
	lookupShare = 96
	lookupLen   = 4096 // of one payload; more is cut off
)

// LookupRing is a queue of Lookups with one producer and one consumer. Each
// Put publishes at once: there are few, and someone waits for the answer.
type LookupRing struct {
	recs []Lookup
	data []byte

	tail, head atomic.Uint32 // written by the producer, by the consumer
}

// NewLookupRing returns an empty ring of a megabyte.
func NewLookupRing() *LookupRing {
	return &LookupRing{recs: make([]Lookup, lookups), data: make([]byte, lookups*lookupLen)}
}

// Full reports whether the next Put of a pod's packet would find no room.
func (r *LookupRing) Full(pod endpoint.ID) bool {
	head, tail := r.head.Load(), r.tail.Load()
	if int(tail-head) == len(r.recs) {
		return true
	}
	n := 0
	for ; head != tail; head++ {
		if r.recs[int(head)&(len(r.recs)-1)].Pod == pod {
			n++
		}
	}
	return n >= lookupShare
}

// Put copies a packet whose payload is the concatenation of parts, and leaves
// l.Data unused. It returns false if there is no room.
func (r *LookupRing) Put(l *Lookup, parts ...[]byte) bool {
	if r.Full(l.Pod) {
		return false
	}
	tail := r.tail.Load()
	i := int(tail) & (len(r.recs) - 1)
	room := r.data[i*lookupLen : (i+1)*lookupLen]
	n, size := 0, 0
	for _, p := range parts {
		n += copy(room[n:], p)
		size += len(p)
	}
	r.recs[i] = *l
	r.recs[i].Data = room[:n]
	r.recs[i].Whole = l.Whole && n == size
	r.tail.Store(tail + 1)
	return true
}

// Read calls visit with each packet; what it is given is valid until it
// returns.
func (r *LookupRing) Read(visit func(*Lookup)) {
	for head := r.head.Load(); head != r.tail.Load(); head++ {
		visit(&r.recs[int(head)&(len(r.recs)-1)])
		r.head.Store(head + 1)
	}
}
