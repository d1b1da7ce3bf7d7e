package compile

import (
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// subject is all endpoints of one identity, or of none: they have the same
// programs.
type subject struct {
	identity  *store.Identity // nil: not known
	compiled  bool
	endpoints int
	policies  []*policy.Policy // that select it, as they are judged
	body      [2]rule.Program
	sums      [2][][]uint64 // hash of each rule of each enforced tier
	programs  [2]rule.ProgramID
	hash      uint64
}

// join returns the subject of an identity, compiled when first met, for one
// endpoint more.
func (b *builder) join(id *store.Identity) *subject {
	s := b.subjects[id]
	if s == nil {
		s = &subject{identity: id}
		b.subjects[id] = s
		b.compile(s)
	}
	s.endpoints++
	return s
}

// leave forgets a subject whose last endpoint leaves.
func (b *builder) leave(s *subject) {
	if s.endpoints--; s.endpoints == 0 {
		delete(b.subjects, s.identity)
		b.users.remove(s)
		b.programs.release(s.programs)
	}
}

// compile makes the programs of a subject, in place of those that it has.
func (b *builder) compile(s *subject) {
	again := s.compiled
	if again {
		b.users.remove(s)
	}
	s.compiled, s.policies = true, nil
	if s.identity == nil {
		closed := []rule.Tier{{Name: "unknown", Default: rule.Deny, DefaultCause: b.c.causes.text(UnknownPod)}}
		s.body = [2]rule.Program{{Tiers: closed}, {Tiers: closed}}
	} else {
		s.policies = resolve.Selecting(b.view, s.identity)
		before, after := resolve.BeforeOwnNode(s.policies)
		in, rest := b.tiers(before, s.identity, rule.Ingress), b.tiers(after, s.identity, rule.Ingress)
		out := b.tiers(s.policies, s.identity, rule.Egress)
		if b.ownPeer != nil {
			in = append(in, rule.Tier{Name: resolve.OwnNode, Rules: []rule.Rule{{
				Action: rule.Allow, Peers: b.ownPeer, AnyPort: true, Cause: b.c.causes.text(resolve.OwnNode)}}})
		}
		in = append(in, rest...)
		s.body = [2]rule.Program{rule.Ingress: {Tiers: in}, rule.Egress: {Tiers: out}}
	}
	before := s.programs
	for d := range s.body {
		s.programs[d] = b.programs.take(&s.body[d])
	}
	if again {
		b.programs.release(before)
	}
	b.users.add(s)
	b.sum(s)
	s.hash = b.hash(s)
}

// tiers compiles one direction of the policies that select id, which come in
// the order of judgement. Tiers that would say nothing are left out.
func (b *builder) tiers(policies []*policy.Policy, id *store.Identity, dir rule.Direction) []rule.Tier {
	var out []rule.Tier
	for len(policies) > 0 {
		n := 1
		for n < len(policies) && policies[n].Tier == policies[0].Tier {
			n++
		}
		if t := b.tier(policies[:n], id, dir); len(t.Rules) > 0 || t.Default != rule.Pass {
			out = append(out, t)
		}
		policies = policies[n:]
	}
	return out
}

func (b *builder) tier(policies []*policy.Policy, id *store.Identity, dir rule.Direction) rule.Tier {
	t := rule.Tier{Name: policies[0].Tier.Name}
	var isolating []rule.PolicyRef
	audit := true
	for _, p := range policies {
		section := resolve.Section(p, dir)
		if !section.Applies {
			continue
		}
		for i := range section.Rules {
			t.Rules = append(t.Rules, b.rule(p, &section.Rules[i], dir, id)...)
		}
		if section.Default == policy.Deny {
			isolating = append(isolating, resolve.Ref(p, rule.DefaultRule, dir))
			audit = audit && b.view.Audit(p)
		}
	}
	if len(isolating) > 0 {
		t.Default, t.DefaultAudit = rule.Deny, audit
		t.DefaultCause = b.c.causes.defaults(isolating)
	}
	return t
}

// rules are the compiled lines of policies that are the same for all subjects.
type rules map[policy.Origin]map[*policy.Rule][]rule.Rule

// rule compiles one rule.
func (b *builder) rule(p *policy.Policy, r *policy.Rule, dir rule.Direction, id *store.Identity) []rule.Rule {
	if lines, ok := b.rules[p.Origin][r]; ok {
		for i := range lines {
			b.c.causes.use(lines[i].Cause)
		}
		return lines
	}
	lines, shared := b.peers.Rules(p.Origin, r, dir, id)
	for i := range lines {
		lines[i].Cause = b.c.causes.rule(resolve.RefOf(p, r, dir))
		lines[i].Audit = r.Action == policy.Deny && b.view.Audit(p)
	}
	if shared {
		if b.rules[p.Origin] == nil {
			b.rules[p.Origin] = map[*policy.Rule][]rule.Rule{}
		}
		b.rules[p.Origin][r] = lines
	}
	return lines
}
