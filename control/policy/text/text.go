// Package text says in a few words, for people, what the parts of policies
// mean. It is pure, and slow enough to stay away from what is done for every
// change.
package text

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// Selector describes a selector.
func Selector(s *policy.Selector) string {
	spec := s.Spec()
	if spec.Nothing {
		return "nothing"
	}
	kind, every := "pods", "all pods"
	if spec.NetworkSets {
		kind, every = "pods and network sets", "all pods and network sets"
	}
	if spec.Kind == policy.KindNode {
		kind, every = "nodes", "all nodes"
	}
	text := every
	if len(spec.Labels) > 0 {
		text = kind + " with " + Requirements(spec.Labels)
	}
	if len(spec.ServiceAccounts) > 0 {
		text += " of service account " + strings.Join(spec.ServiceAccounts, " or ")
	}
	if len(spec.Account) > 0 {
		text += " of service account " + Requirements(spec.Account)
	}
	if spec.Namespace != "" {
		text += " in namespace " + spec.Namespace
	}
	if len(spec.NamespaceLabels) > 0 {
		text += " in namespaces with " + Requirements(spec.NamespaceLabels)
	}
	for i, c := range spec.Where {
		text += []string{" where ", " and "}[min(i, 1)] + c.String()
	}
	return text
}

// Requirements describes conditions on labels as "a=b, !c".
func Requirements(reqs []policy.Requirement) string {
	out := make([]string, len(reqs))
	for i := range reqs {
		out[i] = Requirement(&reqs[i])
	}
	return strings.Join(out, ", ")
}

// Requirement describes one condition on labels.
func Requirement(r *policy.Requirement) string {
	switch {
	case r.Operator == policy.Exists:
		return r.Key
	case r.Operator == policy.DoesNotExist:
		return "!" + r.Key
	case r.Operator == policy.NotIn:
		return r.Key + " notin (" + strings.Join(r.Values, ", ") + ")"
	case len(r.Values) == 1:
		return r.Key + "=" + r.Values[0]
	}
	return r.Key + " in (" + strings.Join(r.Values, ", ") + ")"
}

// Protocol returns the name of a protocol, or its number.
func Protocol(p policy.Protocol) string { return packet.Proto(p).String() }

// Port names what a port matches: "443/TCP", "8000-8100/TCP".
func Port(p policy.Port) string {
	proto := Protocol(p.Protocol)
	switch {
	case p.Name != "" && p.Protocol == 0:
		return fmt.Sprintf("%q", p.Name)
	case p.Name != "":
		return fmt.Sprintf("%q/%s", p.Name, proto)
	case p.From == 0 && p.To == 65535:
		return "any/" + proto
	case p.From == p.To:
		return fmt.Sprintf("%d/%s", p.From, proto)
	}
	return fmt.Sprintf("%d-%d/%s", p.From, p.To, proto)
}

// Ports names what a list of ports matches.
func Ports(list []policy.Port) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = Port(p)
	}
	return out
}

// Peer describes a set of remote ends.
func Peer(p *policy.Peer) string {
	switch {
	case p.Selector != nil:
		return Selector(p.Selector)
	case p.Block != nil:
		return block(p.Block)
	case p.Domain != "":
		return "addresses of " + p.Domain
	}
	return Place(p)
}

// Peers describes each of a list of peers.
func Peers(list []policy.Peer) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = Peer(&list[i])
	}
	return out
}

func block(b *policy.Block) string {
	text := b.Prefix.String()
	if len(b.Except) > 0 {
		text += " except " + join(b.Except)
	}
	if b.Unmanaged {
		text += ", what is no pod and no node"
	}
	return text
}

func join(list []netip.Prefix) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return strings.Join(out, ", ")
}
