package lint

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// usage is what came of one rule when all packets had been judged.
type usage struct {
	ref     rule.PolicyRef
	matched int                  // packets, of those that can be told apart
	decided int                  // of these, decided or passed on by it
	by      map[rule.CauseID]int // of these, decided before it came to it, by what
	within  map[rule.CauseID]int // of these, matched by another rule of the same policy
}

// judge judges all packets that a Set can tell apart, for all its programs.
type judge struct {
	set     *rule.Set
	classes [][]rule.PeerID
	spans   []verdict.PortSpan
	usage   map[rule.CauseID]*usage
	effect  map[policy.Origin]bool // policies without which a verdict would differ
	audit   map[policy.Origin]bool // policies that only report what they deny
}

// match is a rule that matches a packet.
type match struct {
	tier   int
	cause  rule.CauseID
	action rule.Action
	audit  bool
}

// outcome is what holds for a packet.
type outcome struct {
	action rule.Action
	audit  bool
	cause  rule.CauseID // of what decided
	passes []rule.CauseID
}

func newJudge(set *rule.Set, own []netip.Addr, audit map[policy.Origin]bool) *judge {
	j := &judge{set: set, spans: verdict.AllSpans(set), usage: map[rule.CauseID]*usage{},
		effect: map[policy.Origin]bool{}, audit: audit}
	seen := map[string]bool{}
	add := func(peers []rule.PeerID) {
		if key := fmt.Sprint(peers); !seen[key] {
			seen[key] = true
			j.classes = append(j.classes, peers)
		}
	}
	for _, a := range own {
		add(verdict.PeersOf(set, a))
	}
	for _, six := range []bool{false, true} {
		for _, r := range verdict.Regions(own, six, set) {
			add(r.Peers)
		}
	}
	return j
}

func (j *judge) run() {
	done := map[rule.ProgramID]bool{}
	for _, e := range j.set.Endpoints {
		for _, id := range []rule.ProgramID{e.Ingress, e.Egress} {
			if !done[id] {
				done[id] = true
				j.program(&j.set.Programs[id])
			}
		}
	}
}

func (j *judge) program(p *rule.Program) {
	for _, peers := range j.classes {
		for _, span := range j.spans {
			j.packet(p, peers, span)
		}
	}
}

func (j *judge) packet(p *rule.Program, peers []rule.PeerID, span verdict.PortSpan) {
	var matches []match
	for t := range p.Tiers {
		for i := range p.Tiers[t].Rules {
			r := &p.Tiers[t].Rules[i]
			if r.Action != rule.Next && inPeers(r, peers) && inPorts(r, span) {
				matches = append(matches, match{t, r.Cause, r.Action, r.Audit})
			}
		}
	}
	o := j.decide(p, matches, nil)
	for i, m := range matches {
		if slices.ContainsFunc(matches[:i], func(n match) bool { return n.cause == m.cause }) {
			continue
		}
		j.count(m, o, matches)
	}
	for _, cause := range append([]rule.CauseID{o.cause}, o.passes...) {
		for _, ref := range j.set.Causes[cause].Refs {
			without := origin(ref)
			if !j.effect[without] {
				alt := j.decide(p, matches, &without)
				j.effect[without] = alt.action != o.action || alt.audit != o.audit
			}
		}
	}
}

func (j *judge) count(m match, o outcome, matches []match) {
	cause := m.cause
	u := j.usage[cause]
	if u == nil {
		u = &usage{ref: j.set.Causes[cause].Refs[0], by: map[rule.CauseID]int{}, within: map[rule.CauseID]int{}}
		j.usage[cause] = u
	}
	u.matched++
	if o.cause == cause || slices.Contains(o.passes, cause) {
		u.decided++
	} else {
		u.by[before(m, o, matches)]++
	}
	seen := map[rule.CauseID]bool{cause: true}
	for _, n := range matches {
		if ref := j.set.Causes[n.cause].Refs[0]; !seen[n.cause] && origin(ref) == origin(u.ref) && ref.Direction == u.ref.Direction {
			seen[n.cause] = true
			u.within[n.cause]++
		}
	}
}

// before returns what kept a match from deciding: what passed its tier on, else
// what decided.
func before(m match, o outcome, matches []match) rule.CauseID {
	for _, n := range matches {
		if n.tier == m.tier && n.action == rule.Pass && slices.Contains(o.passes, n.cause) {
			return n.cause
		}
	}
	return o.cause
}

// decide walks the tiers as package rule defines it, without one policy if
// skip is set.
func (j *judge) decide(p *rule.Program, matches []match, skip *policy.Origin) outcome {
	var o outcome
tiers:
	for t := range p.Tiers {
		for _, m := range matches {
			if m.tier != t || skip != nil && origin(j.set.Causes[m.cause].Refs[0]) == *skip {
				continue
			}
			if m.action == rule.Pass {
				o.passes = append(o.passes, m.cause)
				continue tiers
			}
			o.action, o.audit, o.cause = m.action, m.audit, m.cause
			return o
		}
		tier := &p.Tiers[t]
		if tier.Default == rule.Pass {
			continue
		}
		isolating, audit := false, true
		for _, r := range j.set.Causes[tier.DefaultCause].Refs {
			if skip == nil || origin(r) != *skip {
				isolating, audit = true, audit && j.audit[origin(r)]
			}
		}
		if isolating {
			o.action, o.audit, o.cause = tier.Default, audit, tier.DefaultCause
			return o
		}
	}
	o.action = rule.Allow
	return o
}

func inPeers(r *rule.Rule, peers []rule.PeerID) bool {
	in := func(list []rule.PeerID) bool {
		return slices.ContainsFunc(list, func(p rule.PeerID) bool {
			_, ok := slices.BinarySearch(peers, p)
			return ok
		})
	}
	return (r.AnyPeer || in(r.Peers)) && !in(r.Not) &&
		!slices.ContainsFunc(r.And, func(list []rule.PeerID) bool { return !in(list) })
}

func inPorts(r *rule.Rule, s verdict.PortSpan) bool {
	return (r.AnyPort || inRanges(r.Ports, s)) && !inRanges(r.NotPorts, s)
}

func inRanges(ports []rule.PortRange, s verdict.PortSpan) bool {
	return slices.ContainsFunc(ports, func(p rule.PortRange) bool {
		return p.Proto == rule.AnyProto || p.Proto == uint8(s.Protocol) && p.From <= s.Port && s.Port <= p.To
	})
}

func origin(r rule.PolicyRef) policy.Origin {
	return policy.Origin{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name}
}

// names lists the rules behind causes, those that decided most first.
func (j *judge) names(by map[rule.CauseID]int) string {
	const most = 3
	causes := slices.SortedFunc(maps.Keys(by), func(a, b rule.CauseID) int {
		if by[a] != by[b] {
			return by[b] - by[a]
		}
		return int(a) - int(b)
	})
	var out []string
	for i, c := range causes {
		if i == most {
			out = append(out, fmt.Sprintf("%d more", len(causes)-most))
			break
		}
		out = append(out, verdict.RefsText(j.set.Causes[c].Refs))
	}
	return strings.Join(out, ", ")
}
