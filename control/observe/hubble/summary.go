package hubble

import (
	"strconv"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// tcpSummaries are those of all combinations of flags.
var tcpSummaries = func() (s [256]string) {
	for flags := range s {
		s[flags] = "TCP Flags: " + observe.FlagNames(uint8(flags), ", ")
	}
	return s
}()

// appendSummary appends a flow in a few words, as the hubble CLI shows it.
func appendSummary(b []byte, f *observe.Flow, v observe.View) []byte {
	switch f.Key.Proto {
	case packet.ProtoTCP:
		b = append(b, tcpSummaries[f.TCPFlags]...)
	case packet.ProtoUDP:
		b = append(b, "UDP"...)
	case packet.ProtoSCTP:
		b = append(b, "SCTP"...)
	case packet.ProtoICMP:
		b = appendICMP(append(b, "ICMPv4 "...), f, icmpv4Names)
	case packet.ProtoICMPv6:
		b = appendICMP(append(b, "ICMPv6 "...), f, icmpv6Names)
	case protoVRRP:
		b = append(b, "VRRP"...)
	case protoIGMP:
		b = append(b, "IGMP"...)
	default:
		b = append(append(b, "IP protocol "...), f.Key.Proto.String()...)
	}
	if v == observe.Trace {
		b = appendEnded(b, f)
	}
	if f.Hook == event.InHost {
		b = append(b, "; a Service's backend"...)
	}
	if !f.Allowed && f.Suppressed > 0 {
		b = strconv.AppendUint(append(b, "; "...), uint64(f.Suppressed), 10)
		b = append(b, " more packets denied likewise"...)
	}
	return b
}

var (
	icmpv4Names = map[uint32]string{0: "EchoReply", 3: "DestinationUnreachable", 5: "Redirect", 8: "EchoRequest", 11: "TimeExceeded", 12: "ParameterProblem", 13: "TimestampRequest", 14: "TimestampReply"}
	icmpv6Names = map[uint32]string{1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded", 4: "ParameterProblem", 128: "EchoRequest", 129: "EchoReply", 135: "NeighborSolicitation", 136: "NeighborAdvertisement"}
)

func appendICMP(b []byte, f *observe.Flow, names map[uint32]string) []byte {
	kind, code := icmp(f)
	name := names[kind]
	if name == "" {
		b = strconv.AppendUint(b, uint64(kind), 10)
	} else if b = append(b, name...); code == 0 {
		return b
	}
	b = strconv.AppendUint(append(b, '('), uint64(code), 10)
	return append(b, ')')
}

// appendEnded sums a flow up.
func appendEnded(b []byte, f *observe.Flow) []byte {
	n, m := f.Side, f.Side.Other()
	b = append(append(b, "; ended after "...), time.Duration(f.DurationNs).Round(time.Millisecond).String()...)
	for _, x := range []struct {
		before string
		n      uint64
	}{{", ", f.Packets[n]}, {" packets ", f.Bytes[n]}, {" bytes sent, ", f.Packets[m]}, {" packets ", f.Bytes[m]}} {
		b = strconv.AppendUint(append(b, x.before...), x.n, 10)
	}
	return append(b, " bytes received"...)
}
