package verdict

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/text"
)

// Flow is what is asked about two ends: a protocol and a destination port. For
// ICMP and ICMPv6 the port is type<<8 | code, 0 standing for an echo request.
type Flow struct {
	Protocol policy.Protocol
	Port     uint16
}

// String returns "TCP/80", or the protocol alone if it has no ports.
func (f Flow) String() string {
	if !HasPorts(f.Protocol) {
		return ProtocolName(f.Protocol)
	}
	return ProtocolName(f.Protocol) + "/" + strconv.Itoa(int(f.Port))
}

// Echo requests (RFC 792, RFC 4443).
const (
	echo4 = 8 << 8
	echo6 = 128 << 8
)

// between makes ICMP what it is called in the family of the pair.
func (f Flow) between(p Pair) Flow {
	if f.Protocol == policy.ICMP && p.Dst.Is6() {
		f.Protocol = policy.ICMPv6
	}
	switch {
	case f.Protocol == policy.ICMP && f.Port == 0:
		f.Port = echo4
	case f.Protocol == policy.ICMPv6 && f.Port == 0:
		f.Port = echo6
	}
	return f
}

// HasPorts reports whether policies tell the ports of a protocol apart.
func HasPorts(p policy.Protocol) bool {
	return p == policy.TCP || p == policy.UDP || p == policy.SCTP
}

// ProtocolName returns the name of a protocol, or its number.
func ProtocolName(p policy.Protocol) string { return text.Protocol(p) }

var protocols = map[string]policy.Protocol{
	"TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP, "ICMP": policy.ICMP, "ICMPV6": policy.ICMPv6,
}

// ParseProtocol understands names in any case, and numbers. None means TCP, as
// in a NetworkPolicy.
func ParseProtocol(s string) (policy.Protocol, error) {
	if s == "" {
		return policy.TCP, nil
	}
	if p, ok := protocols[strings.ToUpper(s)]; ok {
		return p, nil
	}
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n > 0 {
		return policy.Protocol(n), nil
	}
	return 0, fmt.Errorf("proto %q: want TCP, UDP, SCTP, ICMP or a number from 1 to 255", s)
}

// ParsePort understands the port of a protocol. Only protocols without ports
// can do without.
func ParsePort(p policy.Protocol, s string) (uint16, error) {
	if s == "" && !HasPorts(p) {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 && HasPorts(p) {
		if s == "" {
			return 0, fmt.Errorf("port: Required value: %s has ports, want 1 to 65535", ProtocolName(p))
		}
		return 0, fmt.Errorf("port %q: want 1 to 65535", s)
	}
	return uint16(n), nil
}

// ParseFlow understands "80", "TCP/80" and "ICMP".
func ParseFlow(s string) (Flow, error) {
	proto, port, ok := strings.Cut(s, "/")
	if !ok {
		if _, err := strconv.Atoi(s); err == nil {
			proto, port = "", s
		}
	}
	p, err := ParseProtocol(proto)
	if err != nil {
		return Flow{}, err
	}
	n, err := ParsePort(p, port)
	return Flow{p, n}, err
}
