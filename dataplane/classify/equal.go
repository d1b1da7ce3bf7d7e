package classify

import (
	"slices"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// equalPrograms reports whether two programs judge alike; names don't count.
func equalPrograms(a, b *rule.Program) bool {
	return a == b || (a.Staged == nil) == (b.Staged == nil) &&
		slices.EqualFunc(a.Tiers, b.Tiers, equalTiers) && slices.EqualFunc(a.Staged, b.Staged, equalTiers)
}

func equalTiers(a, b rule.Tier) bool {
	return a.Default == b.Default && a.DefaultAudit == b.DefaultAudit && a.DefaultCause == b.DefaultCause &&
		slices.EqualFunc(a.Rules, b.Rules, equalRules)
}

func equalRules(a, b rule.Rule) bool {
	return a.Action == b.Action && a.Log == b.Log && a.Audit == b.Audit && a.Cause == b.Cause &&
		a.AnyPeer == b.AnyPeer && a.AnyPort == b.AnyPort &&
		slices.Equal(a.Peers, b.Peers) && slices.Equal(a.Ports, b.Ports) &&
		slices.EqualFunc(a.And, b.And, slices.Equal[[]rule.PeerID]) && slices.Equal(a.Not, b.Not) &&
		slices.Equal(a.NotPorts, b.NotPorts)
}

func equalBlocks(a, b rule.Block) bool {
	return a.Peer == b.Peer && a.Prefix == b.Prefix && a.Unbound == b.Unbound && slices.Equal(a.Except, b.Except)
}
