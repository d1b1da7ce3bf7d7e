package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico"
	"github.com/sluice-net/sluice/control/policy/clusternetworkpolicy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// rule looks at what one rule of a policy names.
func (l *linter) rule(kind, object string, dir rule.Direction, r *policy.Rule, subject []*store.Identity) {
	path := verdict.RuleField(dir, r)
	what, peers, ports := "from", "%s.from[%d]", "%s.ports[%d]"
	if dir == rule.Egress {
		what, peers = "to", "%s.to[%d]"
	}
	switch {
	case calico.IsKind(kind):
		peers, ports = "%s.source", "%s.destination.ports[%d]"
		if dir == rule.Egress {
			peers = "%s.destination"
		}
	case r.Path != "": // several fields each, and ports within ports: Cilium's
		peers, ports = "%s", "%s.toPorts"
	case kind == clusternetworkpolicy.Kind:
		ports = "%s.protocols[%d]"
	}
	var remote []*store.Identity
	nobody := !r.AnyPeer
	for i := range r.Peers {
		s := r.Peers[i].Selector
		if s == nil {
			nobody = false
			continue
		}
		ids := l.matching([]*policy.Selector{s})
		remote = append(remote, ids...)
		none := len(ids) == 0 && len(l.view.NetworkSets(s)) == 0
		nobody = nobody && none
		if none {
			l.noPeer(object, element(peers, path, i), what, s)
		}
	}
	if nobody {
		l.said[object+path] = true
	}
	if r.AnyPeer || slices.ContainsFunc(r.Peers, func(p policy.Peer) bool { return p.Block != nil }) {
		remote = slices.Collect(l.view.IdentitiesSince(0))
	}
	// The name is looked up on the destination.
	dst, whose := subject, "pod that the policy selects"
	if dir == rule.Egress {
		dst, whose = remote, "pod that the rule names"
	}
	if len(dst) == 0 {
		return
	}
	missing := 0
	for i, port := range r.Ports {
		if port.Name == "" || slices.ContainsFunc(dst, func(id *store.Identity) bool { return hasName(id, port) }) {
			continue
		}
		missing++
		l.add(Warning, CheckNamedPort, object, element(ports, path, i),
			fmt.Sprintf("no %s has a port named %s", whose, verdict.PortText(port)))
	}
	if missing > 0 && missing == len(r.Ports) {
		l.said[object+path] = true
	}
}

// element names an element of a list; where there is none, the field.
func element(pattern, path string, i int) string {
	if strings.Contains(pattern, "%d") {
		return fmt.Sprintf(pattern, path, i)
	}
	return fmt.Sprintf(pattern, path)
}

func hasName(id *store.Identity, port policy.Port) bool {
	return slices.ContainsFunc(id.Ports, func(np store.NamedPort) bool {
		return np.Name == port.Name && (port.Protocol == 0 || port.Protocol == np.Protocol)
	})
}

// noPeer says why a peer selects nothing: because of a namespace that is not
// there, if that is it.
func (l *linter) noPeer(object, field, what string, s *policy.Selector) {
	var absent []string
	for _, ns := range verdict.NamespaceNames(s, store.NameLabel) {
		if l.view.NamespaceLabels(ns) == nil {
			absent = append(absent, ns)
		}
	}
	if len(absent) > 0 {
		l.add(Warning, CheckNamespace, object, field, "namespace "+strings.Join(absent, ", ")+" does not exist, and no pod is in it")
		return
	}
	l.add(Warning, CheckSelectsNone, object, field, what+" nobody: there are no "+those(s))
}

// those names what a selector selects, to be said to be absent.
func those(s *policy.Selector) string { return strings.TrimPrefix(verdict.SelectorText(s), "all ") }
