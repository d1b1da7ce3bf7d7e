package cilium

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

// portRule is one element of toPorts or icmps. Without ports it matches
// nothing.
type portRule struct {
	ports []policy.Port
	dns   []policy.Name // which lookups teach names
}

// maxPorts is the most ports, or ICMP fields, of one element.
const maxPorts = 40

// isServiceName is a port name by RFC 6335, section 5.1.
var isServiceName = regexp.MustCompile(`^([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$`).MatchString

var ported = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// readPortRule reads an element of toPorts.
func (r *reading) readPortRule(n node, egress, deny bool) portRule {
	var out portRule
	known := []string{"ports"}
	if !deny {
		known = append(known, "terminatingTLS", "originatingTLS", "serverNames", "listener", "rules")
	}
	f, ok := n.object(known...)
	if !ok {
		return out
	}
	for _, l7 := range []string{"terminatingTLS", "originatingTLS", "serverNames", "listener"} {
		if x, ok := f[l7]; ok {
			r.fault(x.at, "L7 rules are not supported, but for rules.dns")
		}
	}
	if x, ok := f["rules"]; ok {
		out.dns = r.readL7(x, egress)
	}
	ports, ok := f["ports"]
	if !ok {
		if out.dns != nil {
			r.fault(n.at, "Required value: port 53 must be specified for DNS rules")
		}
		return out
	}
	list := ports.list()
	if len(list) > maxPorts {
		r.fault(ports.at, "Too many: %d: may not have more than %d ports", len(list), maxPorts)
	}
	if len(list) == 0 && out.dns != nil {
		r.fault(ports.at, "Required value: port 53 must be specified for DNS rules")
	}
	for _, p := range list {
		out.ports = append(out.ports, r.readPort(p, out.dns != nil)...)
	}
	return out
}

// readL7 reads what of L7 there is: patterns of lookups. nil: there are none.
func (r *reading) readL7(n node, egress bool) []policy.Name {
	f, ok := n.object("http", "dns", "kafka", "l7proto", "l7")
	if !ok {
		return nil
	}
	for _, l7 := range []string{"http", "kafka", "l7proto", "l7"} {
		if x, ok := f[l7]; ok && x.v != "" {
			r.fault(x.at, "L7 rules are not supported, but for rules.dns")
		}
	}
	dns, ok := f["dns"]
	if !ok {
		return nil
	}
	var out []policy.Name
	for _, e := range dns.list() {
		if name, ok := r.readPattern(e, false); ok {
			out = append(out, name)
		}
	}
	if len(out) > 0 && !egress {
		r.fault(dns.at, "Forbidden: DNS rules are not allowed on ingress")
	}
	return out
}

// readPort reads one port, which stands for one of each protocol if it names
// none. Port 0 is all ports, an endPort below the port none at all, and one
// beside 0 is ignored: so Cilium's engine does. Beside a name it has it begin a
// range at whatever number has the name, which the model can't say.
func (r *reading) readPort(n node, dns bool) []policy.Port {
	f, ok := n.object("port", "endPort", "protocol")
	if !ok {
		return nil
	}
	protocols := ported
	if p, ok := f["protocol"]; ok {
		switch name := strings.ToUpper(p.string()); name {
		case "", "ANY":
		case "TCP":
			protocols = []policy.Protocol{policy.TCP}
		case "UDP":
			protocols = []policy.Protocol{policy.UDP}
		case "SCTP":
			protocols = []policy.Protocol{policy.SCTP}
		case "VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH":
			r.fault(p.at, "Forbidden: %s needs Cilium's option enable-extended-ip-protocols, which is off by default", name)
		default:
			r.fault(p.at, "Unsupported value: %s: supported values: \"TCP\", \"UDP\", \"SCTP\", \"ANY\"", p.text())
		}
	}
	end := 0
	if e, ok := f["endPort"]; ok {
		if end = e.number(); end < 0 || end > 65535 {
			r.fault(e.at, "Invalid value: %d: must be between 0 and 65535, inclusive", end)
		}
	}
	port, ok := f["port"]
	if !ok || port.v == "" {
		r.fault(n.at+".port", "Required value: port must be specified")
		return nil
	}
	text := port.string()
	out := policy.Port{Name: strings.ToLower(text)}
	if len(text) <= 15 && isServiceName(text) {
		if end > 0 {
			r.fault(n.at+".endPort", "a range that begins at a named port is not supported")
		}
	} else {
		number, err := strconv.ParseUint(text, 0, 16)
		if err != nil {
			r.fault(port.at, "Invalid value: %q: unable to parse port", text)
			return nil
		}
		if dns && end > int(number) {
			r.fault(n.at+".endPort", "Forbidden: DNS rules do not support port ranges")
		}
		if dns && number == 0 {
			r.fault(port.at, "Forbidden: L7 rules can not be used when a port is 0")
		}
		out = policy.Port{From: uint16(number), To: uint16(max(number, uint64(max(end, 0))))}
		if number == 0 {
			out.To = 65535
		}
	}
	var all []policy.Port
	for _, p := range protocols {
		out.Protocol = p
		all = append(all, out)
	}
	return all
}

// readICMP reads an element of icmps. Type 0 stands for all types, for Cilium's
// engine takes it for port 0.
func (r *reading) readICMP(n node) portRule {
	var out portRule
	f, ok := n.object("fields")
	if !ok {
		return out
	}
	fields, ok := f["fields"]
	if !ok {
		return out
	}
	list := fields.list()
	if len(list) > maxPorts {
		r.fault(fields.at, "Too many: %d: may not have more than %d types", len(list), maxPorts)
	}
	for _, e := range list {
		g, ok := e.object("family", "type")
		if !ok {
			continue
		}
		proto, names := policy.ICMP, icmpTypes
		if fam, ok := g["family"]; ok {
			switch fam.string() {
			case "", "IPv4":
			case "IPv6":
				proto, names = policy.ICMPv6, icmpv6Types
			default:
				r.fault(fam.at, "Unsupported value: %s: supported values: \"IPv4\", \"IPv6\"", fam.text())
			}
		}
		t, ok := g["type"]
		if !ok {
			r.fault(e.at+".type", "Required value")
			continue
		}
		if number, ok := r.icmpType(t, names); ok {
			p := policy.Port{Protocol: proto, From: uint16(number) << 8, To: uint16(number)<<8 | 255}
			if number == 0 {
				p = policy.AllPorts(proto)
			}
			out.ports = append(out.ports, p)
		}
	}
	return out
}

// icmpType returns the number of a type, given as a number, as one in a
// string, or by name.
func (r *reading) icmpType(n node, names map[string]uint8) (number int, ok bool) {
	if s, isText := n.v.(string); isText {
		if t, known := names[s]; known {
			return int(t), true
		}
		v, err := strconv.Atoi(s)
		if err != nil || strconv.Itoa(v) != s {
			r.fault(n.at, "Unsupported value: %q: not an ICMP type of this family", s)
			return 0, false
		}
		number = v
	} else {
		number = n.number()
	}
	if number < 0 || number > 255 {
		r.fault(n.at, "Invalid value: %d: must be between 0 and 255, inclusive", number)
		return 0, false
	}
	return number, true
}

// rules turns entries into rules.
func (r *reading) rules(entries []entry, action policy.Action) []policy.Rule {
	var out []policy.Rule
	for i := range entries {
		rule, ok := r.rule(&entries[i], action)
		if !ok {
			continue
		}
		out = append(out, rule)
		for _, p := range entries[i].ports {
			if len(p.dns) > 0 {
				r.lookups = append(r.lookups, policy.Lookup{Names: p.dns, AnyPeer: rule.AnyPeer, Peers: rule.Peers})
			}
		}
	}
	return out
}

// rule turns an entry into a rule; not ok if it matches nothing. An entry
// without peers means all peers only if it names ports: `[{}]` allows nothing.
func (r *reading) rule(e *entry, action policy.Action) (policy.Rule, bool) {
	rule := policy.Rule{Index: e.index, Path: e.path(), Action: action, AnyPort: !e.ported}
	for _, p := range e.ports {
		rule.Ports = append(rule.Ports, p.ports...)
	}
	switch {
	case e.peers.nothing, e.ported && len(rule.Ports) == 0:
		return rule, false
	case !e.peers.any:
		rule.AnyPeer = true
		return rule, e.ported
	}
	rule.AnyPeer, rule.Peers = e.peers.all, slices.Clone(e.peers.list)
	for _, s := range e.peers.endpoints {
		scoped := s.scoped(r.namespace, r.init)
		if scoped.wildcard() {
			rule.AnyPeer = true
		}
		rule.Peers = append(rule.Peers, scoped.peers()...)
	}
	if rule.AnyPeer {
		rule.Peers = nil
	}
	return rule, rule.AnyPeer || len(rule.Peers) > 0
}
