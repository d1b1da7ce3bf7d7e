package control

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// services lists what a node's NAT translates, as kube-proxy does: each address
// of a Service, and the node's own addresses at its node ports, those that IPv6
// gives each link among them. Its addresses on other nodes' ports are those nodes'
// business.
func services(v store.View, own []netip.Addr) (out []forward.Service) {
	for s := range v.AllServices() {
		for i := range s.Exposed {
			p := &s.Exposed[i]
			to := v.Backends(s, p)
			if len(to) == 0 {
				continue // nothing answers there: judged as any other address
			}
			ends := v.Ends(s, p)
			if slices.Equal(ends, to) {
				ends = to // as it is most of the time: one list will do
			}
			add := func(a netip.Addr, port uint16) {
				one := dataplane.Service{Addr: a, Proto: packet.Proto(p.Protocol), Port: port, Backends: ofFamily(to, a)}
				if port != 0 && len(one.Backends) > 0 {
					out = append(out, forward.Service{Service: one, Ends: ofFamily(ends, a)})
				}
			}
			for _, a := range s.Addrs {
				add(a, p.Port)
			}
			for _, a := range own {
				add(a, p.NodePort)
			}
			add(dataplane.AnyLinkLocal, p.NodePort)
		}
	}
	return out
}

func ofFamily(list []netip.AddrPort, a netip.Addr) []netip.AddrPort {
	other := func(b netip.AddrPort) bool { return b.Addr().Is4() != a.Is4() }
	if !slices.ContainsFunc(list, other) {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), other)
}

// readServices brings the list of Services up to date with what is published: what
// comes after v is of the next publish.
func (a *Agent) readServices(v store.View, own []netip.Addr) {
	s := &a.services
	changes, ok := v.Since(s.read.store)
	s.read.store = v.Generation()
	if ok && slices.Equal(own, s.read.hostAddrs) && !slices.ContainsFunc(changes, func(c store.Change) bool { return c.Outside }) {
		return
	}
	s.read.hostAddrs, s.list = own, services(v, own)
	s.revision++
}
