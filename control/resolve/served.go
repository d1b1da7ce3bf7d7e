package resolve

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// served is a port of a Service and where it is served: at addresses, or by
// pods that a selector matches, perhaps under a name.
type served struct {
	port     policy.Port
	addrs    []netip.Addr // sorted
	selector *policy.Selector
}

// servicePods returns the selector of the pods of a Service.
func servicePods(svc *store.Service) *policy.Selector {
	spec := policy.SelectorSpec{Namespace: svc.Namespace}
	for k, value := range svc.Selector {
		spec.Labels = append(spec.Labels, policy.Requirement{Key: k, Operator: policy.In, Values: []string{value}})
	}
	return policy.NewSelector(spec)
}

// endpointsPlace returns where a Service is served, ready or not.
func endpointsPlace(v store.View, q *policy.Endpoints) (out place) {
	key := store.Key{Namespace: q.Namespace, Name: q.Name}
	list := v.EndpointSlices(key)
	if len(list) == 0 {
		svc := v.Service(key)
		if svc == nil || len(svc.Selector) == 0 {
			return out
		}
		pods := servicePods(svc)
		if !q.OnPorts {
			out.selectors = append(out.selectors, pods)
		}
		for _, t := range svc.Ports {
			out.served = append(out.served, served{policy.Port{Protocol: t.Protocol, From: t.Port, To: t.Port, Name: t.Name}, nil, pods})
		}
		return out
	}
	at := map[policy.Port][]netip.Addr{}
	for _, s := range list {
		addrs := slices.Concat(s.Addrs, s.Draining, s.NotReady)
		if !q.OnPorts {
			out.addrs = append(out.addrs, addrs...)
		}
		for _, n := range s.Ports {
			port := policy.Port{Protocol: n.Protocol, From: n.Port, To: n.Port}
			at[port] = append(at[port], addrs...)
		}
	}
	out.addrs = sortedAddrs(out.addrs)
	for port, addrs := range at {
		out.served = append(out.served, served{port, sortedAddrs(addrs), nil})
	}
	slices.SortFunc(out.served, func(a, b served) int { return comparePort(a.port, b.port) })
	return out
}

// onPorts makes one line of each port that a Service is served on. Names of
// ports mean nothing beside a Service.
func (p *Peers) onPorts(of policy.Origin, q *policy.Peer, line rule.Rule) []rule.Rule {
	found := map[number][]rule.PeerID{}
	add := func(n number, id rule.PeerID) {
		single := rule.PortRange{Proto: uint8(n.proto), From: n.port, To: n.port}
		if line.AnyPort || slices.ContainsFunc(line.Ports, func(r rule.PortRange) bool { return covers(r, single) }) {
			found[n] = append(found[n], id)
		}
	}
	for _, s := range p.placeOf(of, q).served {
		switch {
		case s.selector == nil:
			if len(s.addrs) > 0 {
				add(number{s.port.Protocol, s.port.From}, p.Addrs(s.addrs))
			}
		case s.port.Name != "":
			for _, n := range p.named(of, &policy.Peer{Selector: s.selector}, s.port) {
				add(number{n.protocol, n.port}, n.peer)
			}
		default:
			add(number{s.port.Protocol, s.port.From}, p.Of(&policy.Peer{Selector: s.selector}))
		}
	}
	return perNumber(line, found)
}

// isServed reports whether a Service is served at a port of a remote end.
func isServed(v store.View, q *policy.Endpoints, a netip.Addr, ids []*store.Identity, proto policy.Protocol, port uint16) bool {
	for _, s := range endpointsPlace(v, q).served {
		if s.port.Protocol != proto || s.port.Name == "" && s.port.From != port {
			continue
		}
		if slices.Contains(s.addrs, a) || s.selector != nil && slices.ContainsFunc(ids, func(id *store.Identity) bool {
			return s.selector.Matches(&id.Entity) && (s.port.Name == "" || id.HasPort(s.port.Name, proto, port))
		}) {
			return true
		}
	}
	return false
}

// ServedAt reports whether a peer that is met on certain ports only is met at
// this port of a remote end: an address that pods of these identities have.
func ServedAt(v store.View, q *policy.Peer, a netip.Addr, ids []*store.Identity, proto policy.Protocol, port uint16) bool {
	return q.Endpoints == nil || !q.Endpoints.OnPorts || isServed(v, q.Endpoints, a, ids, proto, port)
}
