package sctp

import (
	"encoding/binary"
	"hash/crc32"
)

// Kinds of chunks, RFC 9260 section 3.2.
const (
	kindData             = 0
	kindInit             = 1
	kindInitAck          = 2
	kindSack             = 3
	kindHeartbeat        = 4
	kindHeartbeatAck     = 5
	kindAbort            = 6
	kindShutdown         = 7
	kindShutdownAck      = 8
	kindCookieEcho       = 10
	kindCookieAck        = 11
	kindShutdownComplete = 14
)

const (
	headerLen   = 12
	initLen     = 16
	dataLen     = 12
	cookieParam = 7
	window      = 1 << 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type chunk struct {
	kind, flags byte
	value       []byte
}

type packet struct {
	src, dst uint16
	tag      uint32
	chunks   []chunk
}

// encode makes a packet of one chunk.
func (p packet) encode(c chunk) []byte {
	b := make([]byte, headerLen, headerLen+4+len(c.value)+3)
	binary.BigEndian.PutUint16(b, p.src)
	binary.BigEndian.PutUint16(b[2:], p.dst)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	b = append(b, c.kind, c.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(c.value)))
	b = append(b, c.value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parse takes a packet apart; its values are of b.
func parse(b []byte) (p packet, ok bool) {
	if len(b) < headerLen {
		return p, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	binary.LittleEndian.PutUint32(b[8:], 0)
	if crc32.Checksum(b, castagnoli) != sum {
		return p, false
	}
	p = packet{src: binary.BigEndian.Uint16(b), dst: binary.BigEndian.Uint16(b[2:]), tag: binary.BigEndian.Uint32(b[4:])}
	for b = b[headerLen:]; len(b) >= 4; {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return p, false
		}
		p.chunks = append(p.chunks, chunk{b[0], b[1], b[4:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	return p, true
}

// initChunk is what the ends tell each other first.
type initChunk struct{ tag, tsn uint32 }

// encode makes the value of INIT, or of INIT ACK with its cookie.
func (i initChunk) encode(cookie []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, i.tag)
	b = binary.BigEndian.AppendUint32(b, window)
	b = binary.BigEndian.AppendUint16(b, 1) // streams out
	b = binary.BigEndian.AppendUint16(b, 1) // and in
	b = binary.BigEndian.AppendUint32(b, i.tsn)
	if cookie != nil {
		b = binary.BigEndian.AppendUint16(b, cookieParam)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(cookie)))
		b = append(b, cookie...)
	}
	return b
}

func parseInit(v []byte) initChunk {
	return initChunk{binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[12:])}
}

// findCookie finds the cookie among the parameters of INIT ACK.
func findCookie(b []byte) []byte {
	for len(b) >= 4 {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return nil
		}
		if binary.BigEndian.Uint16(b) == cookieParam {
			return append([]byte(nil), b[4:n]...)
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// cookie is the listener's memory, which the peer carries. It is not signed:
// these are tests.
type cookie struct{ own, peer initChunk }

func (c cookie) encode() []byte {
	var b []byte
	for _, v := range []uint32{c.own.tag, c.own.tsn, c.peer.tag, c.peer.tsn} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func parseCookie(b []byte) (cookie, bool) {
	if len(b) != 16 {
		return cookie{}, false
	}
	u := func(i int) uint32 { return binary.BigEndian.Uint32(b[i:]) }
	return cookie{initChunk{u(0), u(4)}, initChunk{u(8), u(12)}}, true
}
