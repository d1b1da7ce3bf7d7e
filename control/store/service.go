package store

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
)

// Service is what policy sees of a Service: which pods it leads to, and from
// where.
type Service struct {
	Namespace, Name string
	Labels          map[string]string
	Selector        map[string]string // nil or empty: its endpoints are written by hand
	Ports           []TargetPort
	Addrs           []netip.Addr  // that nodes translate: of the cluster, external, of load balancers; sorted
	Exposed         []ServicePort // at Addrs
}

// ServicePort is a port of a Service's addresses. Name leads to that of its
// endpoints.
type ServicePort struct {
	NamedPort
	NodePort uint16 // on every node's own addresses; 0: none
}

// TargetPort is where a port of a Service leads to on a pod.
type TargetPort struct {
	Protocol policy.Protocol
	Port     uint16 // 0: the one with the name
	Name     string
}

// Key returns the Service's key.
func (s *Service) Key() Key { return Key{s.Namespace, s.Name} }

func (s *Service) equal(t *Service) bool {
	return s.Namespace == t.Namespace && s.Name == t.Name && maps.Equal(s.Labels, t.Labels) && maps.Equal(s.Selector, t.Selector) &&
		slices.Equal(s.Ports, t.Ports) && slices.Equal(s.Addrs, t.Addrs) && slices.Equal(s.Exposed, t.Exposed)
}

// EndpointSlice is a part of the endpoints of a Service.
type EndpointSlice struct {
	Namespace, Name string
	Service         string
	Addrs           []netip.Addr // unmapped
	NotReady        []netip.Addr // neither ready nor serving
	Draining        []netip.Addr // that serve still, and are led to only where there are no Addrs
	Ports           []NamedPort
}

// Key returns the slice's key.
func (s *EndpointSlice) Key() Key { return Key{s.Namespace, s.Name} }

func (s *EndpointSlice) equal(t *EndpointSlice) bool {
	return s.Namespace == t.Namespace && s.Name == t.Name && s.Service == t.Service &&
		slices.Equal(s.Addrs, t.Addrs) && slices.Equal(s.NotReady, t.NotReady) && slices.Equal(s.Draining, t.Draining) && slices.Equal(s.Ports, t.Ports)
}

// Group is a named group of CIDRs.
type Group struct {
	Name   string
	Labels map[string]string
	CIDRs  []netip.Prefix // masked
}

func (g *Group) equal(h *Group) bool {
	return g.Name == h.Name && maps.Equal(g.Labels, h.Labels) && slices.Equal(g.CIDRs, h.CIDRs)
}

// apiService is the Service of the API server itself.
var apiService = Key{"default", "kubernetes"}

// outside is what policies can name that is neither pod nor node.
type outside struct {
	services map[Key]*Service
	slices   map[Key]*EndpointSlice
	bySvc    map[Key]map[Key]*EndpointSlice
	groups   map[string]*Group
	sets     map[Key]*NetworkSet
}

func newOutside() outside {
	return outside{services: map[Key]*Service{}, slices: map[Key]*EndpointSlice{},
		bySvc: map[Key]map[Key]*EndpointSlice{}, groups: map[string]*Group{}, sets: map[Key]*NetworkSet{}}
}

func (tx *Tx) outsideChanged() {
	tx.changed = true
	tx.st.note(Change{Outside: true})
}

// SetService adds or replaces a Service.
func (tx *Tx) SetService(s *Service) {
	if old := tx.st.outside.services[s.Key()]; old == nil || !old.equal(s) {
		tx.outsideChanged()
		tx.st.outside.services[s.Key()] = s
	}
}

// DeleteService removes a Service.
func (tx *Tx) DeleteService(key Key) {
	if _, ok := tx.st.outside.services[key]; ok {
		tx.outsideChanged()
		delete(tx.st.outside.services, key)
	}
}

// SetEndpointSlice adds or replaces an EndpointSlice.
func (tx *Tx) SetEndpointSlice(s *EndpointSlice) {
	old := tx.st.outside.slices[s.Key()]
	if old != nil && old.equal(s) {
		return
	}
	tx.DeleteEndpointSlice(s.Key())
	tx.outsideChanged()
	of := Key{s.Namespace, s.Service}
	if tx.st.outside.bySvc[of] == nil {
		tx.st.outside.bySvc[of] = map[Key]*EndpointSlice{}
	}
	tx.st.outside.slices[s.Key()], tx.st.outside.bySvc[of][s.Key()] = s, s
}

// DeleteEndpointSlice removes an EndpointSlice.
func (tx *Tx) DeleteEndpointSlice(key Key) {
	old := tx.st.outside.slices[key]
	if old == nil {
		return
	}
	tx.outsideChanged()
	of := Key{old.Namespace, old.Service}
	delete(tx.st.outside.slices, key)
	if delete(tx.st.outside.bySvc[of], key); len(tx.st.outside.bySvc[of]) == 0 {
		delete(tx.st.outside.bySvc, of)
	}
}

// SetGroup adds or replaces a group of CIDRs.
func (tx *Tx) SetGroup(g *Group) {
	if old := tx.st.outside.groups[g.Name]; old == nil || !old.equal(g) {
		tx.outsideChanged()
		tx.st.outside.groups[g.Name] = g
	}
}

// DeleteGroup removes a group of CIDRs.
func (tx *Tx) DeleteGroup(name string) {
	if _, ok := tx.st.outside.groups[name]; ok {
		tx.outsideChanged()
		delete(tx.st.outside.groups, name)
	}
}

// Services returns the Services that s names, by namespace and name.
func (v View) Services(s *policy.ServicePods) []*Service {
	var out []*Service
	for key, svc := range v.st.outside.services {
		if s.Namespace != "" && s.Namespace != key.Namespace || s.Name != "" && s.Name != key.Name {
			continue
		}
		if s.Name != "" || policy.MatchLabels(s.Labels, svc.Labels) {
			out = append(out, svc)
		}
	}
	slices.SortFunc(out, func(a, b *Service) int { return compareKeys(a.Key(), b.Key()) })
	return out
}

// AllServices yields all Services, in no order.
func (v View) AllServices() iter.Seq[*Service] { return maps.Values(v.st.outside.services) }

// Backends returns where a port of a Service leads to, sorted and unique.
func (v View) Backends(s *Service, port *ServicePort) []netip.AddrPort {
	var ready, draining []netip.AddrPort
	for _, slice := range v.st.outside.bySvc[s.Key()] {
		for _, p := range slice.Ports {
			if p.Name != port.Name || p.Protocol != port.Protocol {
				continue
			}
			for _, a := range slice.Addrs {
				ready = append(ready, netip.AddrPortFrom(a, p.Port))
			}
			for _, a := range slice.Draining {
				draining = append(draining, netip.AddrPortFrom(a, p.Port))
			}
		}
	}
	if len(ready) == 0 {
		ready = draining
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

// Ends returns where connections to a port of a Service may lead, those to
// Backends and those that live on: to endpoints that are draining, or not ready.
// Sorted and unique.
func (v View) Ends(s *Service, port *ServicePort) (out []netip.AddrPort) {
	for _, slice := range v.st.outside.bySvc[s.Key()] {
		for _, p := range slice.Ports {
			if p.Name != port.Name || p.Protocol != port.Protocol {
				continue
			}
			for _, a := range slices.Concat(slice.Addrs, slice.Draining, slice.NotReady) {
				out = append(out, netip.AddrPortFrom(a, p.Port))
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// ServiceAddrs returns the addresses of the endpoints of a Service, sorted and
// unique.
func (v View) ServiceAddrs(key Key) []netip.Addr {
	var out []netip.Addr
	for _, s := range v.st.outside.bySvc[key] {
		out = append(out, s.Addrs...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// Service returns a Service, or nil.
func (v View) Service(key Key) *Service { return v.st.outside.services[key] }

// EndpointSlices returns the slices of a Service, by name.
func (v View) EndpointSlices(key Key) []*EndpointSlice {
	out := slices.Collect(maps.Values(v.st.outside.bySvc[key]))
	slices.SortFunc(out, func(a, b *EndpointSlice) int { return compareKeys(a.Key(), b.Key()) })
	return out
}

// APIServer returns the addresses of the API server, sorted and unique: the
// endpoints of default/kubernetes.
func (v View) APIServer() []netip.Addr { return v.ServiceAddrs(apiService) }

// CIDRs returns the prefixes of the groups that g names, sorted and unique.
func (v View) CIDRs(g *policy.Group) []netip.Prefix {
	var out []netip.Prefix
	for name, group := range v.st.outside.groups {
		if g.Name == name || g.Name == "" && policy.MatchLabels(g.Labels, group.Labels) {
			out = append(out, group.CIDRs...)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// NodeNames yields the names of all nodes, also of those that are known only
// by their host-network pods.
func (v View) NodeNames() func(yield func(string) bool) { return maps.Keys(v.st.nodes) }

// Managed reports whether a pod or a node has an address.
func (v View) Managed(a netip.Addr) bool {
	return len(v.st.byAddr[a]) > 0 || len(v.st.nodesAt[a]) > 0
}

func compareKeys(a, b Key) int {
	if a.Namespace != b.Namespace {
		if a.Namespace < b.Namespace {
			return -1
		}
		return 1
	}
	if a.Name < b.Name {
		return -1
	}
	if a.Name > b.Name {
		return 1
	}
	return 0
}
