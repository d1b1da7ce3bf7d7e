package event

import (
	"fmt"
	"sync/atomic"
)

// maxSnapLen is the largest part of a packet that is captured, bytes.
const maxSnapLen = 2048

// PacketRing is a queue of packets with the record of their verdict, with one
// producer and one consumer. It is off the path of packets that nobody
// captures, so each Put publishes at once.
type PacketRing struct {
	want Interest
	recs []Record
	lens []packetLen
	data []byte
	snap int

	tail, head atomic.Uint32 // written by the producer, by the consumer
	lost       atomic.Uint64 // written by the producer
}

type packetLen struct {
	captured uint16
	length   uint32 // of the whole packet
}

// NewPacketRing returns a ring for a number of packets, a power of two, of up to
// snapLen bytes each, whose records want asks for.
func NewPacketRing(packets, snapLen int, want Interest) (*PacketRing, error) {
	if packets < 2 || packets&(packets-1) != 0 {
		return nil, &SizeError{packets}
	}
	if snapLen < 1 || snapLen > maxSnapLen {
		return nil, fmt.Errorf("snap length %d: want 1 to %d", snapLen, maxSnapLen)
	}
	return &PacketRing{want: want, recs: make([]Record, packets), lens: make([]packetLen, packets),
		data: make([]byte, packets*snapLen), snap: snapLen}, nil
}

// Interest returns which packets belong into the ring.
func (r *PacketRing) Interest() Interest { return r.want }

// Put copies a packet of length bytes, of which data is the beginning, or
// counts it as lost. It never blocks.
func (r *PacketRing) Put(rec *Record, length int, data []byte) {
	tail := r.tail.Load()
	if int(tail-r.head.Load()) == len(r.recs) {
		r.lost.Add(1)
		return
	}
	i := int(tail) & (len(r.recs) - 1)
	r.recs[i] = *rec
	n := copy(r.data[i*r.snap:(i+1)*r.snap], data)
	r.lens[i] = packetLen{captured: uint16(n), length: uint32(length)}
	r.tail.Store(tail + 1)
}

// Read calls visit with each packet; what it is given is valid until it
// returns.
func (r *PacketRing) Read(visit func(rec *Record, length int, data []byte)) {
	for head := r.head.Load(); head != r.tail.Load(); head++ {
		i := int(head) & (len(r.recs) - 1)
		l := r.lens[i]
		visit(&r.recs[i], int(l.length), r.data[i*r.snap:i*r.snap+int(l.captured)])
		r.head.Store(head + 1)
	}
}

// Lost returns how many packets found no room.
func (r *PacketRing) Lost() uint64 { return r.lost.Load() }

// Capture is the packets that a worker copies: what is denied has a ring of its own,
// so that a flood of what is allowed can't hide it.
type Capture struct{ denied, allowed *PacketRing }

// NewCapture returns a capture of two rings, each as of NewPacketRing.
func NewCapture(packets, snapLen int, want Interest) (*Capture, error) {
	var c Capture
	var err error
	if c.denied, err = NewPacketRing(packets, snapLen, want); err == nil {
		c.allowed, err = NewPacketRing(packets, snapLen, want)
	}
	return &c, err
}

// Interest returns which packets belong into the capture.
func (c *Capture) Interest() Interest { return c.denied.want }

// Put is that of PacketRing.
func (c *Capture) Put(rec *Record, length int, data []byte) {
	if rec.Allowed {
		c.allowed.Put(rec, length, data)
	} else {
		c.denied.Put(rec, length, data)
	}
}

// Read is that of PacketRing, denied packets first.
func (c *Capture) Read(visit func(rec *Record, length int, data []byte)) {
	c.denied.Read(visit)
	c.allowed.Read(visit)
}

// Lost returns how many packets found no room.
func (c *Capture) Lost() uint64 { return c.denied.Lost() + c.allowed.Lost() }
