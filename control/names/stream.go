package names

import (
	"encoding/binary"
	"slices"

	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// Bounds of what is kept of a pod's conversations over TCP.
const (
	maxStreams = 32
	maxEarly   = 16 // segments of a stream that came before their turn
)

// streams are the directions of a pod's conversations over TCP. A map of a few
// is searched for the oldest.
type streams map[streamKey]*stream

type streamKey struct {
	flow packet.Key
	side packet.Side
}

// stream puts the messages of one direction together: each has its length in
// two bytes before it (RFC 1035, section 4.2.2).
type stream struct {
	next  uint32 // sequence number
	buf   []byte // of a message that isn't complete, with its length
	early []segment
	used  int64 // TimeNs of the latest segment
}

type segment struct {
	seq  uint32
	data []byte
}

// messages calls visit with the messages that a packet brings or completes.
func (p *pupil) messages(x *event.Lookup, visit func(m []byte, whole bool)) {
	if x.Key.Proto == packet.ProtoUDP {
		visit(x.Data, x.Whole)
		return
	}
	key := streamKey{x.Key, x.Side}
	if x.TCPFlags&packet.TCPRst != 0 {
		delete(p.streams, key)
		delete(p.streams, streamKey{x.Key, x.Side.Other()})
		return
	}
	s := p.streams[key]
	if x.TCPFlags&packet.TCPSyn != 0 {
		s = &stream{next: x.Seq + 1}
		p.streams.add(key, s)
	}
	if s == nil {
		// Where its messages begin is known from its beginning alone. A pod can
		// have it begin again where it likes, by a reset that only the resolver
		// knows to ignore or by many conversations: within a record of its own.
		return
	}
	s.used = x.TimeNs
	if x.TCPFlags&packet.TCPSyn == 0 {
		s.take(x.Seq, x.Data, func(m []byte) { visit(m, true) })
	}
	if x.TCPFlags&packet.TCPFin != 0 || !x.Whole {
		delete(p.streams, key)
	}
}

// add makes room for one more.
func (s streams) add(key streamKey, x *stream) {
	if _, there := s[key]; !there && len(s) >= maxStreams {
		var oldest streamKey
		first := true
		for k, y := range s {
			if first || y.used < s[oldest].used {
				oldest, first = k, false
			}
		}
		delete(s, oldest)
	}
	s[key] = x
}

// take takes a segment in, and calls visit with each message that is complete
// now; it is valid until visit returns.
func (s *stream) take(seq uint32, data []byte, visit func([]byte)) {
	ahead := int32(seq - s.next)
	if ahead > 0 {
		if len(s.early) < maxEarly {
			s.early = append(s.early, segment{seq, slices.Clone(data)})
		}
		return
	}
	s.append(data, ahead)
	for again := true; again; {
		again = false
		for i, e := range s.early {
			if ahead := int32(e.seq - s.next); ahead <= 0 {
				s.early = slices.Delete(s.early, i, i+1)
				s.append(e.data, ahead)
				again = true
				break
			}
		}
	}
	at := 0
	for len(s.buf)-at >= 2 {
		n := int(binary.BigEndian.Uint16(s.buf[at:]))
		if len(s.buf)-at < 2+n {
			break
		}
		visit(s.buf[at+2 : at+2+n])
		at += 2 + n
	}
	s.buf = s.buf[:copy(s.buf, s.buf[at:])]
}

// append adds the bytes of a segment that starts ahead bytes from the next one
// that is due, zero or less: some have been seen already.
func (s *stream) append(data []byte, ahead int32) {
	if seen := -int64(ahead); seen < int64(len(data)) {
		data = data[seen:]
		s.buf = append(s.buf, data...)
		s.next += uint32(len(data))
	}
}
