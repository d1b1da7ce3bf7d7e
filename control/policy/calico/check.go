package calico

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluice-net/sluice/control/policy"
)

// checkRule judges a rule as Calico's validator does, and understands what is
// valid of it.
func (r *reading) checkRule(in *rule, index int, egress bool) {
	if in.at == "" {
		return // illegible
	}
	in.Source.at, in.Destination.at = in.at+".source", in.at+".destination"
	if _, ok := actions[in.Action]; !ok {
		r.fault(in.at+".action", "Unsupported value: %q: supported values: \"Allow\", \"Deny\", \"Log\", \"Pass\"", in.Action)
	}
	if given(in.HTTP) {
		r.fault(in.at+".http", "HTTP match is not supported: packets are judged, not requests")
	}
	in.proto = r.protocol(in.at+".protocol", in.Protocol)
	in.notProto = r.protocol(in.at+".notProtocol", in.NotProtocol)
	r.checkICMP(in.at+".icmp", in.ICMP, in.proto)
	r.checkICMP(in.at+".notICMP", in.NotICMP, in.proto)
	r.checkVersion(in)
	r.entity(&in.Source, in.proto, given(in.Protocol))
	r.entity(&in.Destination, in.proto, given(in.Protocol))
	r.family(in)
	r.services(in, egress)
	if len(in.Source.Ports) > 0 {
		r.fault(in.Source.at+".ports", "source ports are not supported: rules don't see them")
	}
	if len(in.Source.NotPorts) > 0 {
		r.fault(in.Source.at+".notPorts", "source ports are not supported: rules don't see them")
	}
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

var protocolNames = map[string]policy.Protocol{"TCP": policy.TCP, "UDP": policy.UDP, "ICMP": policy.ICMP,
	"ICMPv6": policy.ICMPv6, "SCTP": policy.SCTP, "UDPLite": 136}

// protocol reads a name or a number, as a number or as text.
func (r *reading) protocol(at string, raw json.RawMessage) policy.Protocol {
	if !given(raw) {
		return 0
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	if p, ok := protocolNames[text]; ok {
		return p
	}
	if n, err := strconv.ParseUint(text, 10, 8); err == nil && n > 0 {
		return policy.Protocol(n)
	}
	r.fault(at, "Invalid value: %s: want TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255", short(raw))
	return 0
}

func short(raw json.RawMessage) string {
	if len(raw) > 80 {
		return fmt.Sprintf("a value of %d bytes", len(raw))
	}
	return string(raw)
}

func (r *reading) checkICMP(at string, c *icmp, proto policy.Protocol) {
	if c == nil {
		return
	}
	if proto != policy.ICMP && proto != policy.ICMPv6 {
		r.fault(at, "Invalid value: ICMP fields require protocol to be ICMP or ICMPv6")
	}
	if c.Type != nil && (*c.Type < 0 || *c.Type > 254) {
		r.fault(at+".type", "Invalid value: %d: want 0 to 254", *c.Type)
	}
	if c.Code != nil && (*c.Code < 0 || *c.Code > 255) {
		r.fault(at+".code", "Invalid value: %d: want 0 to 255", *c.Code)
	}
	if c.Code != nil && c.Type == nil {
		r.fault(at+".code", "Invalid value: ICMP code specified without an ICMP type")
	}
}

func (r *reading) checkVersion(in *rule) {
	if in.IPVersion == nil {
		switch in.proto {
		case policy.ICMP:
			in.family = 4
		case policy.ICMPv6:
			in.family = 6
		}
		return
	}
	in.family = *in.IPVersion
	if in.family != 4 && in.family != 6 {
		r.fault(in.at+".ipVersion", "Unsupported value: %d: supported values: 4, 6", in.family)
		return
	}
	for _, p := range []policy.Protocol{in.proto, in.notProto} {
		if p == policy.ICMP && in.family != 4 || p == policy.ICMPv6 && in.family != 6 {
			r.fault(in.at+".ipVersion", "Invalid value: %d: protocol ICMP requires ipVersion 4, and ICMPv6 6", in.family)
		}
	}
}

// entity understands one end. named: the rule has a protocol.
func (r *reading) entity(e *entity, proto policy.Protocol, named bool) {
	e.nets = r.networks(e.at+".nets", e.Nets, false)
	e.notNets = r.networks(e.at+".notNets", e.NotNets, true)
	e.ports = r.ports(e.at+".ports", e.Ports, proto, named)
	e.notPorts = r.ports(e.at+".notPorts", e.NotPorts, proto, named)
	pos, neg := r.ends(e)
	if pos != nil {
		e.pos = compile(pos, true)
	}
	if neg != nil {
		e.neg = compile(neg, true)
	}
}

// unmapped reads an IPv4-mapped network as one of IPv4, as Go's net package
// and so Calico does.
func unmapped(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p
}

// networks reads CIDRs, which have to be masked.
func (r *reading) networks(at string, list []string, negated bool) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range list {
		p, err := netip.ParsePrefix(text)
		p = unmapped(p)
		switch field := fmt.Sprintf("%s[%d]", at, i); {
		case err != nil:
			r.fault(field, "Invalid value: %q: must be a CIDR", text)
		case p != p.Masked():
			r.fault(field, "Invalid value: %q: must be the address of a network, as %s", text, p.Masked())
		case negated && p.Bits() == 0:
			r.fault(field, "Invalid value: %q: leaves nothing to match", text)
		default:
			out = append(out, p)
		}
	}
	return out
}

// family finds the only IP version that a rule can match: Calico leaves a rule
// out of the version that its networks, negated ones too, say nothing about.
func (r *reading) family(in *rule) {
	of := func(p netip.Prefix) int {
		if p.Addr().Is4() {
			return 4
		}
		return 6
	}
	seen := 0
	for _, list := range []struct {
		at   string
		nets []netip.Prefix
	}{{in.Source.at + ".nets", in.Source.nets}, {in.Source.at + ".notNets", in.Source.notNets},
		{in.Destination.at + ".nets", in.Destination.nets}, {in.Destination.at + ".notNets", in.Destination.notNets}} {
		for _, p := range list.nets {
			switch {
			case in.IPVersion != nil && of(p) != *in.IPVersion:
				r.fault(list.at, "Invalid value: %s: rule IP version doesn't match CIDR version", p)
			case seen != 0 && of(p) != seen:
				r.fault(list.at, "Invalid value: %s: rule contains both IPv4 and IPv6 CIDRs", p)
			}
			seen = of(p)
		}
	}
	switch {
	case seen == 0, in.IPVersion != nil:
	case in.family == 0 || in.family == seen:
		in.family = seen
	default:
		r.fault(in.at+".protocol", "Invalid value: the protocol and the CIDRs are of different IP versions")
	}
}

func (r *reading) services(in *rule, egress bool) {
	if in.Source.Services != nil && egress {
		r.fault(in.Source.at+".services", "Forbidden: not allowed in egress rule source")
	}
	if in.Destination.Services != nil && !egress {
		r.fault(in.Destination.at+".services", "Forbidden: not allowed in ingress rule destination")
	}
	for _, e := range []*entity{&in.Source, &in.Destination} {
		s := e.Services
		if s == nil {
			continue
		}
		at := e.at + ".services"
		if s.Name == "" {
			r.fault(at+".name", "Required value: services must specify a service name")
		}
		if s.Namespace == "" && r.namespace == "" {
			r.fault(at+".namespace", "Required value: must specify a namespace")
		}
		if e.NamespaceSelector != "" || e.Selector != "" || e.NotSelector != "" || e.ServiceAccounts != nil || len(e.Nets) > 0 || len(e.NotNets) > 0 {
			r.fault(at, "Forbidden: may not be given beside selectors, serviceAccounts or nets")
		}
	}
	if d := &in.Destination; d.Services != nil && len(d.Ports)+len(d.NotPorts) > 0 {
		r.fault(d.at+".services", "Forbidden: ports and notPorts cannot be specified with services")
	}
}

var (
	digits    = regexp.MustCompile(`^\d+$`)
	portRange = regexp.MustCompile(`^(\d+):(\d+)$`)
)

// ports reads numbers, ranges and names.
func (r *reading) ports(at string, list []json.RawMessage, proto policy.Protocol, named bool) []policy.Port {
	has := proto == policy.TCP || proto == policy.UDP || proto == policy.SCTP
	if len(list) > 0 && named && !has {
		r.fault(at, "Invalid value: rules that specify ports must set protocol to TCP or UDP or SCTP")
	}
	var out []policy.Port
	for i, raw := range list {
		field := fmt.Sprintf("%s[%d]", at, i)
		p, err := parsePort(raw)
		if err != nil {
			r.fault(field, "Invalid value: %s: %v", short(raw), err)
			continue
		}
		if p.Name == "" && !named {
			r.fault(field, "Invalid value: %s: rules with numeric port or port range must set protocol to TCP or UDP or SCTP", short(raw))
		}
		p.Protocol = proto
		out = append(out, p)
	}
	return out
}

func parsePort(raw json.RawMessage) (policy.Port, error) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	number := func(s string) (uint16, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("port number must be between 1 and 65535")
		}
		return uint16(n), nil
	}
	if digits.MatchString(text) {
		n, err := number(text)
		return policy.Port{From: n, To: n}, err
	}
	if m := portRange.FindStringSubmatch(text); m != nil {
		from, err := number(m[1])
		if err != nil {
			return policy.Port{}, err
		}
		to, err := number(m[2])
		if err == nil && from > to {
			err = fmt.Errorf("the first port is greater than the last")
		}
		return policy.Port{From: from, To: to}, err
	}
	if msgs := validation.IsValidPortName(text); len(msgs) > 0 {
		return policy.Port{}, fmt.Errorf("%s", strings.Join(msgs, "; "))
	}
	return policy.Port{Name: text}, nil
}
