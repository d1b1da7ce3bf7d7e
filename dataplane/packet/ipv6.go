package packet

import (
	"encoding/binary"

	"github.com/sluice-net/sluice/dataplane/stat"
)

const (
	ipv6HeaderLen = 40
	maxExtHeaders = 8

	extHopByHop   Proto = 0
	extRouting    Proto = 43
	extFragment   Proto = 44
	extAuth       Proto = 51
	extDestOpts   Proto = 60
	optPad1             = 0
	optHomeAddr         = 0xc9 // RFC 6275: replaces the source address
	optJumbo            = 0xc2 // RFC 2675
	fragHeaderLen       = 8
)

// chain is where a walk over IPv6 extension headers ended.
type chain struct {
	proto     Proto // first header that is not an extension
	off       int   // its offset behind the fixed header
	fragged   bool  // a fragment header was seen, atomic or not
	more      bool
	fragProto Proto // next header of the fragment header
	fragOff   uint16
	fragID    uint32
	fragStart int // offset of the fragmentable part behind the fixed header
}

// parseIPv6 reads the header at b[0]; wireLen counts from there.
func parseIPv6(b []byte, wireLen int, h *Header) stat.Reason {
	if len(b) < ipv6HeaderLen {
		return stat.Truncated
	}
	if b[0]>>4 != 6 {
		return stat.Malformed
	}
	h.Src = Addr{be64(b[8:16]), be64(b[16:24])}
	h.Dst = Addr{be64(b[24:32]), be64(b[32:40])}
	dataLen := int(binary.BigEndian.Uint16(b[4:6]))
	h.Proto = Proto(b[6])
	h.TTL = b[7]
	h.IPLen = uint32(ipv6HeaderLen + dataLen)
	h.L4 = h.L3 + ipv6HeaderLen
	// Length 0 before hop-by-hop options announces a jumbogram.
	if h.Src.overlapsV4() || h.Dst.overlapsV4() || dataLen == 0 && h.Proto == extHopByHop {
		return stat.Malformed
	}
	if ipv6HeaderLen+dataLen > wireLen {
		return stat.Truncated
	}
	data := b[ipv6HeaderLen:min(ipv6HeaderLen+dataLen, len(b))]
	if isExtension(h.Proto) {
		return parseChain(data, dataLen, h)
	}
	return parseTransport6(data, dataLen, 0, false, h)
}

// parseChain is parseIPv6 for a packet with extension headers.
func parseChain(data []byte, dataLen int, h *Header) stat.Reason {
	c := chain{proto: h.Proto}
	r := c.walk(data)
	h.Proto = c.proto
	h.L4 += uint16(c.off)
	if c.fragged && (c.more || c.fragOff != 0) {
		h.FragID = c.fragID
		fixedLen := c.fragStart - fragHeaderLen // the fixed header doesn't count (RFC 8200, 4.5)
		if f := setFragment(h, c.fragOff, c.more, fixedLen, dataLen-c.fragStart, c.fragProto); f != stat.OK {
			return f
		}
		if r == stat.Truncated && h.Frag == FragFirst {
			return stat.BadFragment // the chain must be whole (RFC 7112)
		}
	}
	if r != stat.OK {
		return r
	}
	if h.Frag == FragLater {
		if isIPv4Only(h.Proto) {
			return stat.Malformed
		}
		return stat.OK
	}
	return parseTransport6(data[c.off:], dataLen-c.off, c.off-c.fragStart, c.fragged, h)
}

// parseTransport6 reads the header behind the chain. fragPrefix counts the
// bytes of extension headers inside the fragmentable part; fragged says that
// there was a fragment header.
func parseTransport6(data []byte, dataLen, fragPrefix int, fragged bool, h *Header) stat.Reason {
	switch h.Proto {
	case ProtoTCP, ProtoUDP, ProtoSCTP:
		return parsePorts(data, dataLen, fragPrefix, h)
	case ProtoICMPv6:
		return parseICMPv6(data, dataLen, fragPrefix, fragged, h)
	}
	if isIPv4Only(h.Proto) {
		return stat.Malformed
	}
	h.FragHeaders = uint16(fragPrefix)
	return stat.OK
}

func isIPv4Only(p Proto) bool { return p == ProtoICMP || p == protoIGMP }

// isExtension reports whether p is a header that another header follows. ESP
// and "no next header" end the chain and are judged as protocols, and so is
// whatever is unknown.
func isExtension(p Proto) bool {
	switch p {
	case extHopByHop, extRouting, extFragment, extAuth, extDestOpts:
		return true
	}
	return false
}

// walk follows the chain from c.proto at data[0]. A later fragment ends it:
// what follows is not a header.
func (c *chain) walk(data []byte) stat.Reason {
	for n := 0; isExtension(c.proto); n++ {
		if n == maxExtHeaders || n > 0 && c.proto == extHopByHop {
			return stat.ExtensionHeaders
		}
		e := data[c.off:]
		if len(e) < 8 {
			return stat.Truncated
		}
		size := 8 + int(e[1])*8
		switch c.proto {
		case extAuth:
			size = 8 + int(e[1])*4
		case extFragment:
			size = fragHeaderLen
		}
		if size > len(e) {
			return stat.Truncated
		}
		if r := c.enter(e[:size]); r != stat.OK {
			return r
		}
		c.off += size
		if c.proto == extFragment {
			c.fragStart = c.off
			if c.fragOff != 0 {
				c.proto = c.fragProto
				return stat.OK
			}
		}
		c.proto = Proto(e[0])
	}
	return stat.OK
}

// enter judges one extension header, e being all of it.
func (c *chain) enter(e []byte) stat.Reason {
	switch c.proto {
	case extHopByHop, extDestOpts:
		return walkIPv6Options(e[2:])
	case extRouting:
		// Type 0 never (RFC 5095). The others while segments are left: the
		// destination that policy would judge is not the last one.
		if e[2] == 0 || e[3] != 0 {
			return stat.SourceRouted
		}
	case extFragment:
		if c.fragged {
			return stat.ExtensionHeaders
		}
		w := binary.BigEndian.Uint16(e[2:4])
		c.fragged, c.more = true, w&1 != 0
		c.fragOff = w &^ 7
		c.fragID = binary.BigEndian.Uint32(e[4:8])
		c.fragProto = Proto(e[0])
	case extAuth:
		if len(e) < 12 || len(e)%8 != 0 {
			return stat.ExtensionHeaders
		}
	}
	return stat.OK
}

// walkIPv6Options refuses jumbograms, options that change the source address
// and options that run out of bounds.
func walkIPv6Options(o []byte) stat.Reason {
	for len(o) > 0 {
		if o[0] == optPad1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || int(o[1])+2 > len(o) {
			return stat.ExtensionHeaders
		}
		switch o[0] {
		case optJumbo:
			return stat.Malformed
		case optHomeAddr:
			return stat.ExtensionHeaders
		}
		o = o[int(o[1])+2:]
	}
	return stat.OK
}
