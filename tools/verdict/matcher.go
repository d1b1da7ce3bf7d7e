package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/text"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// matcher compares one packet with rules, giving reasons.
type matcher struct {
	dir     rule.Direction
	subject *store.Identity // whose policies are walked
	remote  End
	addr    netip.Addr        // of the remote end
	ids     []*store.Identity // what selectors see there
	domains map[string][]netip.Addr
	view    store.View
	site    resolve.Site // of the subject
	flow    Flow
	own     netip.Addr // of the subject
}

func newMatcher(v store.View, domains map[string][]netip.Addr, dir rule.Direction, subject, remote End, own, addr netip.Addr, f Flow) *matcher {
	m := &matcher{own: own, dir: dir, subject: v.PodIdentity(subject.Pod.Key()), remote: remote, addr: addr, domains: domains, view: v, flow: f,
		site: resolve.Site{Node: subject.Pod.NodeName, Addrs: nodeAddrs(v, subject.Pod.NodeName)}}
	if remote.Judged() {
		m.ids = append(m.ids, v.PodIdentity(remote.Pod.Key()))
	}
	for n := range v.Nodes() {
		if slices.Contains(n.Addrs, addr) {
			m.ids = append(m.ids, v.NodeIdentity(n.Name))
		}
	}
	return m
}

// rule reports whether a rule matches, by what, or what of it doesn't.
func (m *matcher) rule(r *policy.Rule) (bool, []string) {
	also, why := m.further(r)
	if !also {
		return false, why
	}
	ok, base := m.base(r)
	if !ok {
		return false, base
	}
	return true, append(base, why...)
}

// base judges peers and ports.
func (m *matcher) base(r *policy.Rule) (bool, []string) {
	if r.AnyPeer {
		ok, why := m.ports(r, m.ids, true)
		return ok, prefixed("any peer", ok, why)
	}
	var misses []string
	anyHit := false
	for i := range r.Peers {
		ids, hit, why := m.peer(&r.Peers[i])
		if !hit {
			misses = append(misses, fmt.Sprintf("peer %d: %s", i, why))
			continue
		}
		anyHit = true
		ok, portWhy := m.ports(r, ids, named(&r.Peers[i]))
		if ok && !resolve.ServedAt(m.view, &r.Peers[i], m.addr, m.ids, m.flow.Protocol, m.flow.Port) {
			ok, portWhy = false, fmt.Sprintf("port %s is not served there", m.portText())
		}
		if ok {
			return true, prefixed(fmt.Sprintf("peer %d: %s", i, why), true, portWhy)
		}
		misses = append(misses, prefixed(fmt.Sprintf("peer %d matches (%s)", i, why), false, portWhy)...)
	}
	if len(r.Peers) == 0 {
		misses = append(misses, "names no peer")
	}
	// The port that would be wrong besides.
	if ok, why := m.ports(r, m.ids, true); !ok && !anyHit {
		misses = append(misses, why)
	}
	return false, misses
}

func prefixed(peer string, matched bool, port string) []string {
	if matched {
		return []string{peer, port}
	}
	if peer == "any peer" {
		return []string{port}
	}
	return []string{peer + ", but " + port}
}

// peer reports whether the remote end is in a peer, as which identities, and
// why, or why not.
func (m *matcher) peer(p *policy.Peer) (ids []*store.Identity, hit bool, why string) {
	switch {
	case p.Block != nil:
		return m.ids, resolve.BlockMatches(m.view, &m.site, p.Block, m.addr), m.block(p.Block)
	case p.Domain != "":
		hit, why := m.domain(p.Domain)
		return nil, hit, why
	case p.Selector == nil, p.Selector.NetworkSets() && !m.selected(p.Selector):
		hit := resolve.PlaceMatches(m.view, &m.site, m.domains, p, m.addr, m.ids)
		return m.ids, hit, m.place(p, hit)
	}
	for _, id := range m.ids {
		if p.Selector.Matches(&id.Entity) {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 {
		return ids, true, "is selected: " + SelectorText(p.Selector)
	}
	switch {
	case len(m.ids) > 0:
		for _, id := range m.ids {
			if id.Entity.Kind == p.Selector.Kind() {
				return nil, false, Mismatch(p.Selector, &id.Entity)
			}
		}
		return nil, false, Mismatch(p.Selector, &m.ids[0].Entity)
	case m.remote.Pod != nil:
		return nil, false, m.remote.Pod.Key().String() + " is in the host network: selectors of pods don't see it"
	case p.Selector.Kind() == policy.KindNode:
		return nil, false, m.addr.String() + " is no node's"
	}
	return nil, false, m.addr.String() + " is no pod's"
}

// selected reports whether a selector matches the remote end as a pod, or one
// is worth naming what of it doesn't match.
func (m *matcher) selected(s *policy.Selector) bool {
	return len(m.ids) > 0 && len(m.view.NetworkSets(s)) == 0 ||
		slices.ContainsFunc(m.ids, func(id *store.Identity) bool { return s.Matches(&id.Entity) })
}

// named reports whether names of ports mean something in a peer.
func named(p *policy.Peer) bool {
	return p.Domain == "" && p.Name == nil && p.Group == nil && p.Zone == 0 && p.APIServer == policy.Whether &&
		(p.Block == nil || !p.Block.Unmanaged)
}

func (m *matcher) block(b *policy.Block) string {
	text := blockText(b, m.addr)
	if b.Unmanaged && b.Contains(m.addr) && !resolve.BlockMatches(m.view, &m.site, b, m.addr) {
		text += ", but is that of a pod or a node"
	}
	return text
}

func (m *matcher) place(p *policy.Peer, hit bool) string {
	if hit {
		return fmt.Sprintf("%s is %s", m.addr, text.Place(p))
	}
	return fmt.Sprintf("%s is not %s", m.addr, text.Place(p))
}

func blockText(b *policy.Block, a netip.Addr) string {
	if !b.Prefix.Contains(a) {
		return fmt.Sprintf("address %s is not in %s", a, b.Prefix)
	}
	for _, x := range b.Except {
		if x.Contains(a) {
			return fmt.Sprintf("address %s is in except %s", a, x)
		}
	}
	return fmt.Sprintf("address %s is in %s", a, b.Prefix)
}

func (m *matcher) domain(pattern string) (bool, string) {
	var known []string
	want := strings.ToLower(strings.TrimSuffix(pattern, "."))
	for name, addrs := range m.domains {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		below, wild := strings.CutPrefix(want, "*")
		if name != want && !(wild && len(name) > len(below) && strings.HasSuffix(name, below)) {
			continue
		}
		known = append(known, name)
		if slices.Contains(addrs, m.addr) {
			return true, fmt.Sprintf("address %s is one of %s", m.addr, name)
		}
	}
	if known == nil {
		return false, fmt.Sprintf("it is not known what %s resolves to", pattern)
	}
	return false, fmt.Sprintf("address %s is none of %s", m.addr, pattern)
}

// ports reports whether the flow is in the ports of a rule, for a remote end
// that matches as ids. named says whether names of ports mean something there.
func (m *matcher) ports(r *policy.Rule, ids []*store.Identity, named bool) (bool, string) {
	if r.AnyPort {
		return true, "any port"
	}
	var list []string
	for _, p := range r.Ports {
		words := text.Port(p)
		switch {
		case p.Name == "":
			if p.Protocol == m.flow.Protocol && p.From <= m.flow.Port && m.flow.Port <= p.To {
				return true, fmt.Sprintf("port %s in %s", m.portText(), words)
			}
		case p.Protocol != 0 && p.Protocol != m.flow.Protocol:
		case m.dir == rule.Ingress:
			ids = []*store.Identity{resolve.Caller(r, m.subject)}
			fallthrough
		default:
			if (named || m.dir == rule.Ingress) && hasPort(ids, p.Name, m.flow) {
				return true, fmt.Sprintf("port %s is called %s", m.portText(), p.Name)
			}
			words += namedText(ids, p)
		}
		list = append(list, words)
	}
	if list == nil {
		return false, "names no port"
	}
	return false, fmt.Sprintf("port %s not in %s", m.portText(), strings.Join(list, ", "))
}

func (m *matcher) portText() string {
	if !HasPorts(m.flow.Protocol) {
		return ProtocolName(m.flow.Protocol)
	}
	return fmt.Sprintf("%d/%s", m.flow.Port, ProtocolName(m.flow.Protocol))
}

func hasPort(ids []*store.Identity, name string, f Flow) bool {
	return slices.ContainsFunc(ids, func(id *store.Identity) bool { return id.HasPort(name, f.Protocol, f.Port) })
}

// namedText says what a name stands for at the destination.
func namedText(ids []*store.Identity, p policy.Port) string {
	var out []string
	for _, id := range ids {
		for _, np := range id.Ports {
			if np.Name == p.Name && (p.Protocol == 0 || np.Protocol == p.Protocol) {
				out = append(out, fmt.Sprintf("%d/%s", np.Port, ProtocolName(np.Protocol)))
			}
		}
	}
	if out == nil {
		return " (no such port there)"
	}
	return " (" + strings.Join(out, ", ") + ")"
}

// PortText names what a policy's port matches: "443/TCP", "8000-8100/TCP".
func PortText(p policy.Port) string { return text.Port(p) }
