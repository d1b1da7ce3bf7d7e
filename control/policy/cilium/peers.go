package cilium

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluice-net/sluice/control/policy"
)

// The kinds of peers that an entry can name, of which only one may have
// elements.
const (
	kindEndpoints = iota
	kindCIDR
	kindCIDRSet
	kindEntities
	kindNodes
	kindGroups
	kindServices
	kindFQDNs
	kinds
)

// peerFields are the names of the kinds in a direction, empty for those that
// it doesn't have.
func peerFields(egress bool) [kinds]string {
	if egress {
		return [kinds]string{"toEndpoints", "toCIDR", "toCIDRSet", "toEntities", "toNodes", "toGroups", "toServices", "toFQDNs"}
	}
	return [kinds]string{kindEndpoints: "fromEndpoints", kindCIDR: "fromCIDR", kindCIDRSet: "fromCIDRSet",
		kindEntities: "fromEntities", kindNodes: "fromNodes", kindGroups: "fromGroups"}
}

// peers is what an entry says about the remote end.
type peers struct {
	// nothing: a list is there and empty, which selects nothing. It is so for
	// endpoints, CIDRs, entities and nodes; an empty list of services, names or
	// groups is as good as none.
	nothing   bool
	any       bool // some kind has an element
	all       bool // every remote end, whatever else is listed
	endpoints []*selector
	list      []policy.Peer // the rest
}

func (r *reading) readPeers(f map[string]node, egress bool) peers {
	var p peers
	var first string
	for kind, name := range peerFields(egress) {
		n, ok := f[name]
		if !ok || name == "" {
			continue
		}
		elements := n.list()
		if len(elements) == 0 {
			p.nothing = p.nothing || kind <= kindNodes
			continue
		}
		if first != "" {
			r.fault(n.at, "Forbidden: combining %s and %s is not supported by Cilium", first, name)
		}
		first, p.any = name, true
		for _, e := range elements {
			r.readPeer(&p, kind, e)
		}
	}
	return p
}

func (r *reading) readPeer(p *peers, kind int, n node) {
	add := func(peer policy.Peer, ok bool) {
		if ok {
			p.list = append(p.list, peer)
		}
	}
	switch kind {
	case kindEndpoints:
		p.endpoints = append(p.endpoints, r.readSelector(n))
	case kindCIDR:
		add(r.readCIDR(n))
	case kindCIDRSet:
		add(r.readCIDRRule(n))
	case kindEntities:
		p.all = p.all || n.v == "all"
		p.list = append(p.list, r.readEntity(n)...)
	case kindNodes:
		r.fault(n.at, "Forbidden: selecting nodes by labels needs Cilium's option enable-node-selector-labels, which is off by default")
	case kindGroups:
		r.fault(n.at, "groups of cloud providers are not supported")
	case kindServices:
		add(r.readService(n))
	case kindFQDNs:
		add(r.readName(n))
	}
}

// readCIDR reads an address or a prefix. Bits beyond the length are dropped,
// as Cilium does.
func (r *reading) readCIDR(n node) (policy.Peer, bool) {
	s := n.string()
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		s = netip.PrefixFrom(a, a.BitLen()).String()
	}
	prefix, ok := r.prefix(n.at, s)
	return policy.Peer{Block: &policy.Block{Prefix: prefix, Unmanaged: true}}, ok
}

func (r *reading) prefix(at, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		r.fault(at, "Invalid value: %q: unable to parse CIDR: %v", s, err)
	case p.Addr().Is4In6():
		r.fault(at, "Invalid value: %q: must not have an IPv4-mapped IPv6 address", s)
	default:
		return p.Masked(), true
	}
	return netip.Prefix{}, false
}

// readCIDRRule reads an element of fromCIDRSet or toCIDRSet. Exceptions hold
// for groups too, though Cilium's documentation says that they don't.
func (r *reading) readCIDRRule(n node) (policy.Peer, bool) {
	f, ok := n.object("cidr", "cidrGroupRef", "cidrGroupSelector", "except")
	if !ok {
		return policy.Peer{}, false
	}
	cidr, hasCIDR := f["cidr"]
	ref, hasRef := f["cidrGroupRef"]
	sel, hasSel := f["cidrGroupSelector"]
	count := 0
	for _, has := range []bool{hasCIDR && cidr.v != "", hasRef && ref.v != "", hasSel} {
		if has {
			count++
		}
	}
	if count != 1 {
		r.fault(n.at, "Invalid value: exactly one of cidr, cidrGroupRef, cidrGroupSelector is required")
		return policy.Peer{}, false
	}
	var except []netip.Prefix
	if e, ok := f["except"]; ok {
		for _, x := range e.list() {
			if p, ok := r.prefix(x.at, x.string()); ok {
				except = append(except, p)
			}
		}
	}
	switch {
	case hasSel:
		return policy.Peer{Group: &policy.Group{Labels: r.groupLabels(sel), Except: except}}, true
	case hasRef && ref.v != "":
		name := ref.string()
		for _, msg := range validation.IsDNS1123Subdomain(name) {
			r.fault(ref.at, "Invalid value: %q: %s", name, msg)
		}
		return policy.Peer{Group: &policy.Group{Name: name, Except: except}}, true
	}
	prefix, ok := r.prefix(cidr.at, cidr.string())
	for i, x := range except {
		if ok && (x.Bits() < prefix.Bits() || !prefix.Contains(x.Addr())) {
			r.fault(f["except"].at, "Invalid value: %q: element %d: is not contained in %s", x, i, prefix)
		}
	}
	return policy.Peer{Block: &policy.Block{Prefix: prefix, Except: except, Unmanaged: true}}, ok
}

// groupLabels reads a selector of CiliumCIDRGroups. Their labels have source
// cidrgroup, so a key of another source matches none.
func (r *reading) groupLabels(n node) []policy.Requirement {
	out := []policy.Requirement{}
	for _, q := range r.readSelector(n).reqs {
		if q.source != sourceAny {
			r.fault(n.at, "Invalid value: %q: labels of groups have no source %s", q.key, q.source)
		}
		out = append(out, policy.Requirement{Key: q.key, Operator: q.op, Values: q.values})
	}
	return out
}

// reserved returns what a selector of one reserved label matches.
func reserved(label string) []policy.Peer {
	return (&selector{[]requirement{{source: sourceReserved, key: label, op: policy.In, values: []string{""}}}}).peers()
}

// readEntity returns what an entity stands for. Nothing here is ever init,
// unmanaged, health or ingress.
func (r *reading) readEntity(n node) []policy.Peer {
	pods := policy.Peer{Selector: policy.NewSelector(policy.SelectorSpec{})}
	switch name := n.string(); name {
	case "world":
		return []policy.Peer{{Zone: policy.ZoneWorldIPv4 | policy.ZoneWorldIPv6}}
	case "cluster", "cluster-mesh":
		return append(reserved(apiServer), pods, policy.Peer{Zone: policy.ZoneOwnNode | policy.ZoneOtherNodes})
	case "host", "remote-node", "world-ipv4", "world-ipv6", apiServer:
		return reserved(name)
	case "all", "init", "unmanaged", "health", "ingress", "none":
	default:
		r.fault(n.at, "unsupported entity: %s", n.text())
	}
	return nil
}

// readService reads an element of toServices. Of two ways to name services
// the selector holds, as in Cilium; none names nothing.
func (r *reading) readService(n node) (policy.Peer, bool) {
	f, ok := n.object("k8sService", "k8sServiceSelector")
	if !ok {
		return policy.Peer{}, false
	}
	out := &policy.ServicePods{}
	if s, ok := f["k8sServiceSelector"]; ok {
		g, _ := s.object("selector", "namespace")
		sel, ok := g["selector"]
		if !ok {
			r.fault(s.at+".selector", "Required value")
			return policy.Peer{}, false
		}
		out.Labels = []policy.Requirement{}
		for _, q := range r.readServiceSelector(sel) {
			out.Labels = append(out.Labels, policy.Requirement{Key: q.key, Operator: q.op, Values: q.values})
		}
		if ns, ok := g["namespace"]; ok {
			out.Namespace = ns.string()
		}
		return policy.Peer{Services: out}, true
	}
	if s, ok := f["k8sService"]; ok {
		g, _ := s.object("serviceName", "namespace")
		if name, ok := g["serviceName"]; ok {
			out.Name = name.string()
		}
		if ns, ok := g["namespace"]; ok {
			out.Namespace = ns.string()
		}
		return policy.Peer{Services: out}, out.Name != ""
	}
	return policy.Peer{}, false
}

// readServiceSelector reads a selector whose sources are ignored.
func (r *reading) readServiceSelector(n node) []requirement {
	reqs := r.readSelector(n).reqs
	return slices.DeleteFunc(reqs, func(q requirement) bool { return strings.TrimSpace(q.key) == "" })
}
