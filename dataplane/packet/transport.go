package packet

import (
	"encoding/binary"

	"github.com/sluice-net/sluice/dataplane/stat"
)

const (
	tcpHeaderLen  = 20
	udpHeaderLen  = 8
	sctpHeaderLen = 12
)

// tcpFlagSets has one bit for each combination of FIN, SYN, RST, ACK and URG
// that a TCP sends; the index is the flag byte with PSH, ECE and CWR masked
// out. Everything else (null, SYN+FIN, SYN+RST, FIN without ACK, …) is a scan.
const tcpFlagSets uint64 = 1<<TCPSyn | 1<<(TCPSyn|TCPUrg) | 1<<(TCPSyn|TCPAck) |
	1<<TCPRst | 1<<(TCPRst|TCPAck) |
	1<<TCPAck | 1<<(TCPAck|TCPUrg) |
	1<<(TCPFin|TCPAck) | 1<<(TCPFin|TCPAck|TCPUrg)

// parsePorts reads a TCP, UDP or SCTP header at l4[0]. dataLen is what the IP
// header says is there, of which l4 has the first bytes.
func parsePorts(l4 []byte, dataLen, fragPrefix int, h *Header) stat.Reason {
	size := minHeaderLen(h.Proto)
	if len(l4) < size || len(l4) < udpHeaderLen {
		return cut(h)
	}
	h.SrcPort = binary.BigEndian.Uint16(l4[0:2])
	h.DstPort = binary.BigEndian.Uint16(l4[2:4])
	switch h.Proto {
	case ProtoTCP:
		if len(l4) < tcpHeaderLen {
			return cut(h)
		}
		size = int(l4[12]>>4) * 4
		h.TCPFlags = l4[13]
		if size < tcpHeaderLen || tcpFlagSets>>(h.TCPFlags&0x37)&1 == 0 {
			return stat.Malformed
		}
		if size > dataLen && h.Frag == FragNone {
			return stat.Malformed
		}
		if size > len(l4) {
			return cut(h)
		}
	case ProtoUDP:
		n := int(binary.BigEndian.Uint16(l4[4:6]))
		if n < udpHeaderLen || h.Frag == FragNone && n > dataLen {
			return stat.Malformed
		}
	}
	h.FragHeaders = uint16(fragPrefix + size)
	return stat.OK
}

// TCPSegment returns where a whole TCP segment or a first fragment stands in
// its stream, and where its payload begins in the frame that h was read from;
// false if frame doesn't hold the header.
func TCPSegment(frame []byte, h *Header) (seq uint32, payload int, ok bool) {
	if h.Proto != ProtoTCP || int(h.L4)+tcpHeaderLen > len(frame) {
		return 0, 0, false
	}
	l4 := frame[h.L4:]
	return binary.BigEndian.Uint32(l4[4:8]), int(h.L4) + int(l4[12]>>4)*4, true
}

// cut names the fault of a header that its buffer doesn't hold in full.
func cut(h *Header) stat.Reason {
	if h.Frag == FragFirst {
		return stat.BadFragment
	}
	return stat.Truncated
}
