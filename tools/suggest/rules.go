package suggest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Policy is a NetworkPolicy with what its rules are from.
type Policy struct {
	Namespace, Name string
	Selector        map[string]string
	Without         []string // labels that the selected pods have not
	Pods            []string // that were seen and it selects
	Ingress, Egress []Rule
	FromNode        int // flows from the pods' own node, which is always allowed
}

// Rule is a rule of a policy.
type Rule struct {
	Peers []Peer
	Ports []Port
	From  []string // the flows that it is from
	Notes []string
}

// Peer is pods, or addresses.
type Peer struct {
	Namespace string // of the pods, "" for the policy's own
	Pods      map[string]string
	Without   []string // labels that the pods have not
	CIDR      netip.Prefix
}

// Port is a port, or a range of them.
type Port struct {
	Proto     string
	Port, End uint16 // End is 0 for one port
}

// dns is the peer that resolves names in a cluster.
var dns = Peer{Namespace: "kube-system", Pods: map[string]string{"k8s-app": "kube-dns"}}

const portDNS = 53

// use is what was seen with one peer.
type use struct {
	peer  Peer
	addr  netip.Addr // instead of a peer: an address
	ports map[Port]bool
	conns []*conn
	notes []string
}

func (r *Result) policy(g *group, o Options) *Policy {
	p := &Policy{Namespace: g.namespace, Name: "suggested-" + g.name(), Selector: g.selector, Without: g.without}
	for _, pod := range g.pods {
		p.Pods = append(p.Pods, pod.pod)
	}
	ingress, egress := map[string]*use{}, map[string]*use{}
	for _, c := range r.conns {
		switch {
		case c.dst.group == g && c.src.reserved == "host":
			p.FromNode += c.flows
		case c.dst.group == g:
			r.use(ingress, g, c.src, c)
		}
		if c.src.group == g {
			r.use(egress, g, c.dst, c)
		}
	}
	p.Ingress, p.Egress = r.rules(ingress, o), r.rules(egress, o)
	return p
}

// use notes that pods of a group and a peer are connected.
func (r *Result) use(uses map[string]*use, g *group, remote *party, c *conn) {
	u := &use{ports: map[Port]bool{}}
	key := remote.String()
	switch {
	case remote.isPod() && len(remote.group.selector) > 0:
		u.peer = Peer{Pods: remote.group.selector, Without: remote.group.without}
		if remote.namespace != g.namespace {
			u.peer.Namespace = remote.namespace
		}
		key = u.peer.String()
	case remote.isPod():
		u.addr = remote.addrs[len(remote.addrs)-1]
		u.notes = append(u.notes, fmt.Sprintf("%s has no label that lasts: its address stands for it", remote))
	default:
		u.addr = remote.addrs[0]
	}
	asks := c.port == portDNS && (c.proto == "UDP" || c.proto == "TCP")
	resolves := asks && remote == c.dst
	switch {
	case asks && c.dst.isPod() && c.dst.namespace == dns.Namespace: // what one may ask, the other may answer
		key += " dns"
		u.ports[Port{Proto: "UDP", Port: portDNS}], u.ports[Port{Proto: "TCP", Port: portDNS}] = true, true
	case resolves && !remote.isPod() && remote.addrs[0].IsPrivate():
		// Most likely the Service's address, which the node translates.
		key += " dns"
		u.ports[Port{Proto: "UDP", Port: portDNS}], u.ports[Port{Proto: "TCP", Port: portDNS}] = true, true
		u.peer = dns
		u.notes = append(u.notes, fmt.Sprintf("%s is no pod: taken for the address of the cluster's DNS", remote.addrs[0]))
	default:
		u.ports[Port{Proto: c.proto, Port: c.port}] = true
		if remote == c.dst && !remote.isPod() && remote.reserved != "host" && remote.reserved != "remote-node" && remote.addrs[0].IsPrivate() {
			// A flow says the address that was called, and nothing of what the node translates.
			text := fmt.Sprintf("%s is no pod: if it is a Service's address, only a rule for the pods behind it opens it", remote.addrs[0])
			r.note("%s", text)
			u.notes = append(u.notes, text)
		}
	}
	if was := uses[key]; was != nil {
		maps.Copy(was.ports, u.ports)
		u = was
	}
	u.conns = append(u.conns, c)
	uses[key] = u
}

// rules makes one rule of the peers that used the same ports.
func (r *Result) rules(uses map[string]*use, o Options) []Rule {
	type draft struct {
		Rule
		addrs []netip.Addr
		conns []*conn
	}
	byPorts := map[string]*draft{}
	for _, key := range slices.Sorted(maps.Keys(uses)) {
		u := uses[key]
		ports := ranges(u.ports)
		d := byPorts[fmt.Sprint(ports)]
		if d == nil {
			d = &draft{Rule: Rule{Ports: ports}}
			byPorts[fmt.Sprint(ports)] = d
		}
		if u.addr.IsValid() {
			d.addrs = append(d.addrs, u.addr)
		}
		if u.peer.Pods != nil && !slices.ContainsFunc(d.Peers, u.peer.equal) {
			d.Peers = append(d.Peers, u.peer)
		}
		d.conns = append(d.conns, u.conns...)
		d.Notes = append(d.Notes, u.notes...)
	}
	var out []Rule
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		d := byPorts[key]
		slices.SortFunc(d.Peers, func(a, b Peer) int { return cmp.Compare(a.String(), b.String()) })
		blocks, widened := collapse(d.addrs, o.MaxBlocks)
		for _, b := range blocks {
			d.Peers = append(d.Peers, Peer{CIDR: b})
		}
		if widened {
			d.Notes = append(d.Notes, fmt.Sprintf("%d addresses put together into %d blocks, which hold others too", len(d.addrs), len(blocks)))
		}
		slices.SortFunc(d.conns, compareConns)
		for _, c := range d.conns {
			d.From = append(d.From, fmt.Sprintf("%d × %s", c.flows, c))
		}
		out = append(out, d.Rule)
	}
	slices.SortStableFunc(out, func(a, b Rule) int { return comparePorts(a.Ports[0], b.Ports[0]) })
	return out
}

func (p Peer) equal(o Peer) bool { return p.String() == o.String() }

// String tells peers apart.
func (p Peer) String() string {
	if p.CIDR.IsValid() {
		return p.CIDR.String()
	}
	return p.Namespace + " " + labelText(p.Pods) + strings.Join(append([]string{""}, p.Without...), ",!")
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

// shortestRange is how many ports in a row are written as a range.
const shortestRange = 3

// ranges sorts ports and puts those in a row together.
func ranges(ports map[Port]bool) []Port {
	var out []Port
	sorted := slices.SortedFunc(maps.Keys(ports), comparePorts)
	for i := 0; i < len(sorted); {
		n := 1
		for i+n < len(sorted) && sorted[i+n].Proto == sorted[i].Proto && int(sorted[i+n].Port) == int(sorted[i].Port)+n {
			n++
		}
		if n < shortestRange {
			n = 1
			out = append(out, sorted[i])
		} else {
			out = append(out, Port{sorted[i].Proto, sorted[i].Port, sorted[i+n-1].Port})
		}
		i += n
	}
	return out
}

// collapse covers addresses by prefixes: exactly, unless that takes more than
// most of them.
func collapse(addrs []netip.Addr, most int) (out []netip.Prefix, widened bool) {
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	out = merge(out)
	for step := 1; len(out) > max(most, 2) && step < 32; step++ {
		widened = true
		for i, p := range out {
			keep := max(p.Addr().BitLen()-step, 1)
			if p.Addr().Is6() {
				keep = max(p.Addr().BitLen()-4*step, 1)
			}
			if p.Bits() > keep {
				out[i] = netip.PrefixFrom(p.Addr(), keep).Masked()
			}
		}
		out = merge(out)
	}
	return out, widened
}

// merge sorts prefixes, and puts halves of one, and what others hold, together.
func merge(in []netip.Prefix) []netip.Prefix {
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []netip.Prefix
	for _, p := range in {
		for len(out) > 0 {
			last := out[len(out)-1]
			if last.Overlaps(p) {
				p = last
			} else if whole := netip.PrefixFrom(last.Addr(), last.Bits()-1).Masked(); last.Bits() == p.Bits() && last.Bits() > 1 && whole.Contains(p.Addr()) {
				p = whole
			} else {
				break
			}
			out = out[:len(out)-1]
		}
		out = append(out, p)
	}
	return out
}

// proof returns the connections that a policy is to allow.
func (r *Result) proof() []*conn {
	return slices.DeleteFunc(slices.Clone(r.conns), func(c *conn) bool { return c.src.reserved == "host" })
}

// Connections says which connections the policies allow.
func (r *Result) Connections() []string {
	var out []string
	for _, c := range r.conns {
		out = append(out, strings.TrimSpace(c.String()))
	}
	return out
}
