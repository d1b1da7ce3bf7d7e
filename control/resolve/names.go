package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// name is a port name as policies use it on destinations that a selector
// matches, and what it stands for there.
type name struct {
	selector *policy.Selector
	port     policy.Port
	numbers  map[policy.Port]int // how many identities call the number so
	users    map[policy.Origin]struct{}
}

// named is one number that a port name stands for, and where.
type named struct {
	protocol policy.Protocol
	port     uint16
	peer     rule.PeerID
}

// named resolves a named port on the destinations that q describes, or on any
// pod if q is nil: for each number that the name has on some of them, who
// these are. user is the policy that asks.
func (p *Peers) named(user policy.Origin, q *policy.Peer, port policy.Port) []named {
	sel := anyPod
	if q != nil && q.Name != nil {
		return nil
	}
	if q != nil && isPlace(q) {
		var out []named
		for _, s := range p.placeOf(user, q).selectors {
			out = append(out, p.named(user, &policy.Peer{Selector: s}, port)...)
		}
		return out
	}
	if q != nil {
		if q.Block != nil && q.Block.Unmanaged {
			return nil
		}
		if q.Domain != "" {
			return nil
		}
		if q.Selector != nil {
			sel = q.Selector
		}
	}
	var out []named
	for _, n := range p.numbersOn(user, sel, port) {
		id := p.selected(sel, n)
		if q != nil && q.Block != nil {
			id = p.insideOf(id, q.Block)
		}
		out = append(out, named{n.Protocol, n.From, id})
	}
	return out
}

func (p *Peers) numbersOn(user policy.Origin, sel *policy.Selector, port policy.Port) []policy.Port {
	key := fmt.Sprintf("%s %d %s", port.Name, port.Protocol, sel.Key())
	n := p.names[key]
	if n == nil {
		n = &name{selector: sel, port: port, numbers: map[policy.Port]int{}, users: map[policy.Origin]struct{}{}}
		for _, x := range p.index.Match(p.view, sel) {
			p.member(x) // from now on Touch is to notice when it goes
			n.count(x, 1)
		}
		p.names[key] = n
	}
	n.users[user] = struct{}{}
	return slices.SortedFunc(maps.Keys(n.numbers), comparePort)
}

// count reports whether a number has appeared or vanished.
func (n *name) count(x *store.Identity, by int) (changed bool) {
	for _, q := range numbers(x, n.port) {
		before := n.numbers[q]
		if after := before + by; after > 0 {
			n.numbers[q] = after
		} else {
			delete(n.numbers, q)
		}
		changed = changed || before == 0 || before+by == 0
	}
	return changed
}

// nameChanged counts an identity that has appeared or vanished, and remembers
// whose rules have to be spelt out anew.
func (p *Peers) nameChanged(x *store.Identity, by int) {
	if len(x.Ports) == 0 {
		return
	}
	for _, n := range p.names {
		if n.selector.Matches(&x.Entity) && n.count(x, by) {
			for user := range n.users {
				p.renamed[user] = struct{}{}
			}
		}
	}
}

// Renamed returns the policies whose rules mean other ports by their names
// than before Begin.
func (p *Peers) Renamed() map[policy.Origin]struct{} { return p.renamed }

// numbers lists the distinct meanings of a named port on an identity, each as
// a Port with Name, Protocol, From and To, sorted.
func numbers(x *store.Identity, port policy.Port) []policy.Port {
	var out []policy.Port
	for _, np := range x.Ports {
		if np.Name == port.Name && (port.Protocol == 0 || np.Protocol == port.Protocol) {
			out = append(out, policy.Port{Name: np.Name, Protocol: np.Protocol, From: np.Port, To: np.Port})
		}
	}
	slices.SortFunc(out, comparePort)
	return slices.Compact(out)
}

func comparePort(a, b policy.Port) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.From, b.From))
}
