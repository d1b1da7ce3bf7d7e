package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// subject is all endpoints of one identity, or of none: they have the same
// programs, unless policies ask for their addresses.
type subject struct {
	subjectKey
	addrs     []netip.Addr // if policies ask for them
	compiled  bool
	endpoints int
	policies  []*policy.Policy // that select it, as they are judged
	body      [2]rule.Program
	sums      [2][2][][]uint64 // hash of each rule of each tier, enforced and staged
	programs  [2]rule.ProgramID
	hash      uint64
}

// subjectKey tells subjects apart.
type subjectKey struct {
	identity *store.Identity // nil: not known
	at       string          // addresses, if policies ask for them
}

// asked is whether policies ask for the addresses of the endpoints of an
// identity, and how many subjects these are.
type asked struct {
	byAddress bool
	subjects  int
}

// keyOf returns which subject an endpoint belongs to, and its addresses if they
// matter.
func (b *builder) keyOf(e *endpoint.Endpoint) (subjectKey, []netip.Addr) {
	id := b.identityOf(e)
	if id == nil {
		return subjectKey{}, nil
	}
	a, known := b.asked[id]
	if !known {
		a.byAddress = b.byAddress(resolve.Selecting(b.view, id))
	}
	if !a.byAddress {
		return subjectKey{identity: id}, nil
	}
	addrs := b.view.Pod(store.Key{Namespace: e.Namespace, Name: e.Name}).Addrs()
	return subjectKey{id, fmt.Sprint(addrs)}, addrs
}

// byAddress reports whether policies ask for the addresses of who they select.
func (b *builder) byAddress(policies []*policy.Policy) bool {
	for _, p := range policies {
		for _, s := range []*policy.Section{&p.Ingress, &p.Egress} {
			for i := range s.Rules {
				if r := &s.Rules[i]; (r.Local != nil || r.NotLocal != nil) && b.peers.ByAddress(p.Origin, r) {
					return true
				}
			}
		}
	}
	return false
}

// join returns the subject of an endpoint, compiled when first met, for one
// endpoint more.
func (b *builder) join(e *endpoint.Endpoint) *subject {
	key, addrs := b.keyOf(e)
	s := b.subjects[key]
	if s == nil {
		s = &subject{subjectKey: key, addrs: addrs}
		b.subjects[key] = s
		b.compile(s)
		a := b.asked[key.identity]
		b.asked[key.identity] = asked{key.at != "", a.subjects + 1}
	}
	s.endpoints++
	return s
}

// leave forgets a subject whose last endpoint leaves.
func (b *builder) leave(s *subject) {
	if s.endpoints--; s.endpoints > 0 {
		return
	}
	delete(b.subjects, s.subjectKey)
	b.users.remove(s)
	b.programs.release(s.programs)
	a := b.asked[s.identity]
	if a.subjects--; a.subjects == 0 {
		delete(b.asked, s.identity)
	} else {
		b.asked[s.identity] = a
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
		for d := range s.body {
			dir := rule.Direction(d)
			now, staged := resolve.InForce(b.view, s.policies, dir)
			s.body[d] = rule.Program{Tiers: b.walk(now, s, dir)}
			if staged != nil {
				s.body[d].Staged = b.walk(staged, s, dir)
			}
		}
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

// walk compiles policies that have a say in one direction, which come in the
// order of judgement, and lets a pod's own node in.
func (b *builder) walk(policies []*policy.Policy, s *subject, dir rule.Direction) []rule.Tier {
	if dir == rule.Egress {
		return b.tiers(policies, s, dir)
	}
	before, after := resolve.BeforeOwnNode(policies)
	out := b.tiers(before, s, dir)
	if b.ownPeer != nil {
		out = append(out, rule.Tier{Name: resolve.OwnNode, Rules: []rule.Rule{{
			Action: rule.Allow, Peers: b.ownPeer, AnyPort: true, Cause: b.c.causes.text(resolve.OwnNode)}}})
	}
	return append(out, b.tiers(after, s, dir)...)
}

// tiers compiles one direction of policies that select a subject. Tiers that
// would say nothing are left out.
func (b *builder) tiers(policies []*policy.Policy, s *subject, dir rule.Direction) []rule.Tier {
	var out []rule.Tier
	for len(policies) > 0 {
		n := 1
		for n < len(policies) && policies[n].Tier == policies[0].Tier {
			n++
		}
		if t := b.tier(policies[:n], s, dir); len(t.Rules) > 0 || t.Default != rule.Pass {
			out = append(out, t)
		}
		policies = policies[n:]
	}
	return out
}

func (b *builder) tier(policies []*policy.Policy, s *subject, dir rule.Direction) rule.Tier {
	t := rule.Tier{Name: policies[0].Tier.Name}
	var isolating []rule.PolicyRef
	audit := true
	passed := false // by a rule that holds at some of the subject's addresses
	for _, p := range policies {
		section := resolve.Section(p, dir)
		for i := range section.Rules {
			r := &section.Rules[i]
			lines := b.rule(p, r, dir, s)
			if passed {
				lines = passOn(lines)
			}
			t.Rules = append(t.Rules, lines...)
			passed = passed || r.Action == policy.Pass && b.peers.Partly(p.Origin, r, resolve.Subject{Identity: s.identity, Addrs: s.addrs})
		}
		if section.Default == policy.Deny {
			isolating = append(isolating, resolve.Ref(p, rule.DefaultRule, dir))
			audit = audit && b.view.Audit(p)
		}
	}
	if len(isolating) > 0 && !(passed && audit) {
		t.Default, t.DefaultAudit = rule.Deny, audit
		t.DefaultCause = b.c.causes.defaults(isolating)
	}
	return t
}

// passOn leaves to the next tier what lines would let through.
func passOn(lines []rule.Rule) []rule.Rule {
	lines = slices.Clone(lines)
	for i := range lines {
		if l := &lines[i]; l.Action == rule.Allow || l.Audit {
			l.Action, l.Audit = rule.Pass, false
		}
	}
	return lines
}

// rules are the compiled lines of policies that are the same for all subjects.
type rules map[policy.Origin]map[*policy.Rule][]rule.Rule

// rule compiles one rule.
func (b *builder) rule(p *policy.Policy, r *policy.Rule, dir rule.Direction, s *subject) []rule.Rule {
	if lines, ok := b.rules[p.Origin][r]; ok {
		for i := range lines {
			b.c.causes.use(lines[i].Cause)
		}
		return lines
	}
	audit := r.Action == policy.Deny && b.view.Audit(p)
	lines, shared := b.peers.Rules(p.Origin, r, dir, resolve.Subject{Identity: s.identity, Addrs: s.addrs}, audit)
	for i := range lines {
		lines[i].Cause = b.c.causes.rule(resolve.RefOf(p, r, dir))
		lines[i].Audit = audit
	}
	if shared {
		if b.rules[p.Origin] == nil {
			b.rules[p.Origin] = map[*policy.Rule][]rule.Rule{}
		}
		b.rules[p.Origin][r] = lines
	}
	return lines
}
