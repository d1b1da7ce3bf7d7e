package resolve

import (
	"cmp"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Rules spells one rule of a policy out for a subject, with Cause left to the
// caller. Ports by name are looked up on the subject for ingress, and on each
// destination for egress, which may take several lines. shared reports whether
// any other subject would get the same. of is the policy that the rule is from.
func (p *Peers) Rules(of policy.Origin, r *policy.Rule, dir rule.Direction, subject *store.Identity) (out []rule.Rule, shared bool) {
	line := rule.Rule{Action: actions[r.Action], Log: r.Log, AnyPeer: r.AnyPeer, AnyPort: r.AnyPort}
	shared = true
	if r.AnyPort {
		line.Peers = p.of(of, r)
		return []rule.Rule{line}, true
	}
	var byName []policy.Port
	for _, port := range r.Ports {
		switch {
		case port.Name == "":
			line.Ports = append(line.Ports, rule.PortRange{Proto: uint8(port.Protocol), From: port.From, To: port.To})
		case dir == rule.Ingress:
			shared = false
			for _, n := range numbers(subject, port) {
				line.Ports = append(line.Ports, rule.PortRange{Proto: uint8(n.Protocol), From: n.From, To: n.From})
			}
		default:
			byName = append(byName, port)
		}
	}
	line.Ports = normalPorts(line.Ports)
	if len(line.Ports) > 0 {
		line.Peers = p.of(of, r)
		out = append(out, line)
	}
	return append(out, p.byName(of, r, line, byName)...), shared
}

var actions = [...]rule.Action{policy.Pass: rule.Pass, policy.Allow: rule.Allow, policy.Deny: rule.Deny}

// of numbers the peers of a rule.
func (p *Peers) of(user policy.Origin, r *policy.Rule) []rule.PeerID {
	if r.AnyPeer {
		return nil
	}
	var out []rule.PeerID
	for i := range r.Peers {
		out = append(out, p.All(user, &r.Peers[i])...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// byName makes one line of each number that named ports have on destinations.
func (p *Peers) byName(of policy.Origin, r *policy.Rule, line rule.Rule, ports []policy.Port) []rule.Rule {
	type number struct {
		proto policy.Protocol
		port  uint16
	}
	found := map[number][]rule.PeerID{}
	for _, port := range ports {
		var all []named
		if r.AnyPeer {
			all = p.named(of, nil, port)
		}
		for i := range r.Peers {
			all = append(all, p.named(of, &r.Peers[i], port)...)
		}
		for _, n := range all {
			k := number{n.protocol, n.port}
			found[k] = append(found[k], n.peer)
		}
	}
	var out []rule.Rule
	for n, peers := range found {
		slices.Sort(peers)
		l := line
		l.AnyPeer = false
		l.Peers = slices.Compact(peers)
		l.Ports = []rule.PortRange{{Proto: uint8(n.proto), From: n.port, To: n.port}}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b rule.Rule) int { return comparePorts(a.Ports[0], b.Ports[0]) })
	return out
}

// normalPorts sorts ranges and joins those that overlap or touch.
func normalPorts(in []rule.PortRange) []rule.PortRange {
	slices.SortFunc(in, comparePorts)
	out := in[:0]
	for _, p := range in {
		if n := len(out); n > 0 && out[n-1].Proto == p.Proto && int(p.From) <= int(out[n-1].To)+1 {
			out[n-1].To = max(out[n-1].To, p.To)
			continue
		}
		out = append(out, p)
	}
	return out
}

func comparePorts(a, b rule.PortRange) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
}
