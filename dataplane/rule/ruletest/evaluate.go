// Package ruletest holds what tests of compiled policy need: Evaluate, a slow
// and obvious reading of package rule's definition, and generators of random
// and of realistic Sets. It is the oracle that fast code is compared with, so
// it shares nothing with that code and takes no short cut.
package ruletest

import (
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Evaluate walks the program of one endpoint and direction and returns what
// holds for a packet. The action is Allow or Deny. With audit set the action
// is Allow and cause is that of the deny that was not enforced. log is set if
// any rule on the way, one that passes included, asks for a report. An
// endpoint that the set doesn't know is denied everything, for no cause.
func Evaluate(set *rule.Set, id endpoint.ID, dir rule.Direction, remote netip.Addr,
	proto uint8, port uint16) (action rule.Action, audit, log bool, cause rule.CauseID) {
	i := slices.IndexFunc(set.Endpoints, func(e rule.Endpoint) bool { return e.ID == id })
	if i < 0 {
		return rule.Deny, false, false, rule.NoCause
	}
	program := set.Programs[set.Endpoints[i].Ingress]
	if dir == rule.Egress {
		program = set.Programs[set.Endpoints[i].Egress]
	}
	remote = remote.Unmap()
	action, audit, log, cause = walk(set, program.Tiers, remote, proto, port)
	if program.Staged != nil && action == rule.Allow && !audit {
		if staged, _, _, why := walk(set, program.Staged, remote, proto, port); staged == rule.Deny {
			return rule.Allow, true, log, why
		}
	}
	return action, audit, log, cause
}

func walk(set *rule.Set, tiers []rule.Tier, remote netip.Addr, proto uint8, port uint16) (action rule.Action, audit, log bool, cause rule.CauseID) {
	for _, tier := range tiers {
		action, audit, cause = tier.Default, tier.DefaultAudit, tier.DefaultCause
		for _, r := range tier.Rules {
			if !matchesPeer(set, r, remote) || !matchesPort(r, proto, port) {
				continue
			}
			log = log || r.Log
			if r.Action != rule.Next {
				action, audit, cause = r.Action, r.Audit, r.Cause
				break
			}
		}
		switch {
		case action == rule.Allow:
			return rule.Allow, false, log, cause
		case action == rule.Deny && audit:
			return rule.Allow, true, log, cause
		case action == rule.Deny:
			return rule.Deny, false, log, cause
		}
	}
	return rule.Allow, false, log, rule.NoCause
}

func matchesPort(r rule.Rule, proto uint8, port uint16) bool {
	return (r.AnyPort || inPorts(r.Ports, proto, port)) && !inPorts(r.NotPorts, proto, port)
}

func inPorts(ports []rule.PortRange, proto uint8, port uint16) bool {
	for _, p := range ports {
		if p.Proto == rule.AnyProto || p.Proto == proto && p.From <= port && port <= p.To {
			return true
		}
	}
	return false
}

func matchesPeer(set *rule.Set, r rule.Rule, remote netip.Addr) bool {
	if !r.AnyPeer && !inAny(set, r.Peers, remote) || inAny(set, r.Not, remote) {
		return false
	}
	for _, list := range r.And {
		if !inAny(set, list, remote) {
			return false
		}
	}
	return true
}

func inAny(set *rule.Set, peers []rule.PeerID, remote netip.Addr) bool {
	for _, p := range peers {
		if InPeer(set, p, remote) {
			return true
		}
	}
	return false
}

// InPeer reports whether an unmapped address belongs to a peer.
func InPeer(set *rule.Set, peer rule.PeerID, remote netip.Addr) bool {
	bound := false
	for _, a := range set.Addresses {
		if a.Addr == remote {
			bound = true
			if slices.Contains(set.Identities[a.Identity], peer) {
				return true
			}
		}
	}
	for _, b := range set.Blocks {
		if b.Peer == peer && !(b.Unbound && bound) && inBlock(b, remote) {
			return true
		}
	}
	return false
}

func inBlock(b rule.Block, remote netip.Addr) bool {
	if !b.Prefix.Contains(remote) {
		return false
	}
	for _, e := range b.Except {
		if e.Contains(remote) {
			return false
		}
	}
	return true
}
