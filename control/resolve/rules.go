package resolve

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Subject is whose rules are spelt out.
type Subject struct {
	Identity *store.Identity
	// Addrs are its addresses, for rules that ask for them: see ByAddress.
	Addrs []netip.Addr
}

// Rules spells one rule of a policy out for a subject, with Cause left to the
// caller. Ports by name are looked up on the subject for ingress, and on each
// destination for egress, which may take several lines, as do Services. shared
// reports whether any other subject would get the same. of is the policy that
// the rule is from; audit: its denials are only reported.
func (p *Peers) Rules(of policy.Origin, r *policy.Rule, dir rule.Direction, subject Subject, audit bool) (out []rule.Rule, shared bool) {
	line := rule.Rule{Action: actions[r.Action], Log: r.Log, AnyPeer: r.AnyPeer, AnyPort: r.AnyPort}
	shared = len(r.Local) == 0 && len(r.NotLocal) == 0
	if !shared && !p.local(of, r, subject, r.Action == policy.Deny && !audit, &line) || !p.further(of, r, &line) {
		return nil, shared
	}
	own := Caller(r, subject.Identity)
	ports, byName, same := portsOf(r.Ports, dir, own)
	notPorts, notByName, sameToo := portsOf(r.NotPorts, dir, own)
	shared = shared && same && sameToo
	line.Ports, line.NotPorts = ports, notPorts
	peers, served := split(r.Peers)
	if r.AnyPort || len(line.Ports) > 0 {
		if plain := line; r.AnyPeer || len(peers) > 0 {
			plain.Peers = p.of(of, r.AnyPeer, peers)
			out = append(out, plain)
		}
		for _, q := range served {
			out = append(out, p.onPorts(of, q, line)...)
		}
	}
	out = append(out, p.byName(of, r.AnyPeer, peers, line, byName)...)
	return p.exceptNames(of, r.AnyPeer, peers, out, notByName), shared
}

var actions = [...]rule.Action{policy.Pass: rule.Pass, policy.Allow: rule.Allow, policy.Deny: rule.Deny, policy.Next: rule.Next}

// further adds what else a rule asks of the remote end. It reports whether any
// can fulfil it.
func (p *Peers) further(of policy.Origin, r *policy.Rule, line *rule.Rule) bool {
	for _, list := range r.And {
		ids := p.of(of, false, list)
		if len(ids) == 0 {
			return false
		}
		line.And = append(line.And, ids)
	}
	if len(r.Not) > 0 {
		line.Not = p.of(of, false, r.Not)
	}
	return true
}

// portsOf splits ports into numbers and names that mean something else on each
// destination. shared reports whether the numbers are those of any subject.
func portsOf(list []policy.Port, dir rule.Direction, subject *store.Identity) (out []rule.PortRange, byName []policy.Port, shared bool) {
	shared = true
	for _, port := range list {
		switch {
		case port.Name == "":
			out = append(out, rule.PortRange{Proto: uint8(port.Protocol), From: port.From, To: port.To})
		case dir == rule.Ingress:
			shared = false
			for _, n := range numbers(subject, port) {
				out = append(out, rule.PortRange{Proto: uint8(n.Protocol), From: n.From, To: n.From})
			}
		default:
			byName = append(byName, port)
		}
	}
	return normalPorts(out), byName, shared
}

// split tells those peers apart that are met on certain ports only.
func split(list []policy.Peer) (peers []policy.Peer, served []*policy.Peer) {
	if !slices.ContainsFunc(list, func(q policy.Peer) bool { return q.Endpoints != nil && q.Endpoints.OnPorts }) {
		return list, nil
	}
	for i := range list {
		if q := &list[i]; q.Endpoints != nil && q.Endpoints.OnPorts {
			served = append(served, q)
		} else {
			peers = append(peers, *q)
		}
	}
	return peers, served
}

// of numbers the peers of a list.
func (p *Peers) of(user policy.Origin, any bool, list []policy.Peer) []rule.PeerID {
	if any {
		return nil
	}
	var out []rule.PeerID
	for i := range list {
		out = append(out, p.All(user, &list[i])...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// number is what a port is called.
type number struct {
	proto policy.Protocol
	port  uint16
}

// byName makes one line of each number that named ports have on destinations.
func (p *Peers) byName(of policy.Origin, any bool, peers []policy.Peer, line rule.Rule, ports []policy.Port) []rule.Rule {
	found := map[number][]rule.PeerID{}
	for _, port := range ports {
		var all []named
		if any {
			all = p.named(of, nil, port)
		}
		for i := range peers {
			all = append(all, p.named(of, &peers[i], port)...)
		}
		for _, n := range all {
			k := number{n.protocol, n.port}
			found[k] = append(found[k], n.peer)
		}
	}
	return perNumber(line, found)
}

// perNumber makes one line of each number.
func perNumber(line rule.Rule, found map[number][]rule.PeerID) []rule.Rule {
	var out []rule.Rule
	for n, peers := range found {
		slices.Sort(peers)
		l := line
		l.AnyPeer, l.AnyPort = false, false
		l.Peers = slices.Compact(peers)
		l.Ports = []rule.PortRange{{Proto: uint8(n.proto), From: n.port, To: n.port}}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b rule.Rule) int { return comparePorts(a.Ports[0], b.Ports[0]) })
	return out
}

// exceptNames takes what destinations call by a name out of lines. A number
// that is called so on some destinations gets a line of its own, without these.
func (p *Peers) exceptNames(of policy.Origin, any bool, peers []policy.Peer, lines []rule.Rule, names []policy.Port) []rule.Rule {
	if len(names) == 0 {
		return lines
	}
	apart := p.byName(of, any, peers, rule.Rule{}, names)
	var out []rule.Rule
	for _, line := range lines {
		rest := line
		rest.NotPorts = slices.Clone(line.NotPorts)
		for _, n := range apart {
			rest.NotPorts = append(rest.NotPorts, n.Ports[0])
			if !line.AnyPort && !slices.ContainsFunc(line.Ports, func(r rule.PortRange) bool { return covers(r, n.Ports[0]) }) {
				continue
			}
			own := line
			own.AnyPort, own.Ports = false, n.Ports
			own.Not = slices.Concat(line.Not, n.Peers)
			slices.Sort(own.Not)
			own.Not = slices.Compact(own.Not)
			out = append(out, own)
		}
		rest.NotPorts = normalPorts(rest.NotPorts)
		out = append(out, rest)
	}
	return out
}

// covers reports whether a range holds a single port.
func covers(r, single rule.PortRange) bool {
	return r.Proto == single.Proto && r.From <= single.From && single.To <= r.To
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
