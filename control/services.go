package control

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// services lists what a node's NAT translates, as kube-proxy does: each address
// of a Service, and the node's own addresses at its node ports. Its addresses on
// other nodes' ports are those nodes' business.
func services(v store.View, own []netip.Addr) (out []dataplane.Service) {
	for s := range v.AllServices() {
		for i := range s.Exposed {
			p := &s.Exposed[i]
			to := v.Backends(s, p)
			if len(to) == 0 {
				continue // nothing answers there: judged as any other address
			}
			add := func(a netip.Addr, port uint16) {
				one := dataplane.Service{Addr: a, Proto: packet.Proto(p.Protocol), Port: port, Backends: ofFamily(to, a)}
				if port != 0 && len(one.Backends) > 0 {
					out = append(out, one)
				}
			}
			for _, a := range s.Addrs {
				add(a, p.Port)
			}
			for _, a := range own {
				add(a, p.NodePort)
			}
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

// publishHost tells the dataplane of the Services and of the node's own addresses
// if either have changed since it was last told.
func (a *Agent) publishHost(own []netip.Addr) {
	var list []dataplane.Service
	changed := false
	a.store.Read(func(v store.View) {
		changes, ok := v.Since(a.services.store)
		changed = !ok || !slices.Equal(own, a.services.hostAddrs) || slices.ContainsFunc(changes, func(c store.Change) bool { return c.Outside })
		a.services.store = v.Generation()
		if changed {
			a.services.hostAddrs = own
			list = services(v, own)
		}
	})
	if changed {
		a.plane.SetHost(own, list)
	}
}
