package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Trace is the walk through all policies that had a say in one answer.
type Trace struct {
	Src       string           `json:"src"`
	Dst       string           `json:"dst"`
	SrcAddr   netip.Addr       `json:"srcAddr"`
	DstAddr   netip.Addr       `json:"dstAddr"`
	Proto     string           `json:"proto"`
	Port      uint16           `json:"port"`
	Verdict   string           `json:"verdict"`
	DecidedBy []rule.PolicyRef `json:"decidedBy"`
	Reason    string           `json:"reason,omitempty"`
	Audit     bool             `json:"audit,omitempty"`
	Egress    Leg              `json:"egress"`
	Ingress   Leg              `json:"ingress"`
	// Of a Service: its name, and the walks to where it leads. The legs are then
	// what was said where it was called.
	Service  string   `json:"service,omitempty"`
	Backends []*Trace `json:"backends,omitempty"`
}

// Leg is the walk of one direction.
type Leg struct {
	Pod     string      `json:"pod,omitempty"` // whose policies these are
	Judged  bool        `json:"judged"`
	Verdict string      `json:"verdict"`
	Why     string      `json:"why"`
	Tiers   []TierWalk  `json:"tiers"`
	Staged  []TierWalk  `json:"staged,omitempty"` // what would be walked if staged policies were in force
	Unbound []Selection `json:"notSelecting"`     // policies that could select the pod and don't
	Audit   bool        `json:"audit,omitempty"`
	refs    []rule.PolicyRef
	reason  string
}

// Selection says why a policy does not select a pod.
type Selection struct {
	Policy string `json:"policy"`
	Why    string `json:"why"`
}

// TierWalk is what happened in one tier.
type TierWalk struct {
	Name     string       `json:"name"`
	Policies []PolicyWalk `json:"policies"`
	Outcome  string       `json:"outcome"` // allow, deny or pass
	Why      string       `json:"why"`
}

// PolicyWalk is what happened in one policy.
type PolicyWalk struct {
	Kind      string     `json:"kind"`
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	Audit     bool       `json:"audit,omitempty"`
	Rejected  bool       `json:"rejected,omitempty"` // not valid: only isolates
	Isolates  bool       `json:"isolates,omitempty"`
	Staged    bool       `json:"staged,omitempty"`
	Rules     []RuleWalk `json:"rules"`
}

// RuleWalk is what happened at one rule.
type RuleWalk struct {
	Rule    string   `json:"rule"` // "ingress[0]"
	Action  string   `json:"action"`
	Matched bool     `json:"matched"`
	Why     []string `json:"why"`
}

// Walk answers a question with all its reasons. It is an error if the walk and
// the compiled rules disagree.
func (c *Cluster) Walk(src, dst End, f Flow) (*Trace, error) {
	pairs, err := Pairs(src, dst)
	if err != nil {
		return nil, err
	}
	if err := calls(src); err != nil {
		return nil, err
	}
	s, err := c.served(src, dst, pairs[0], f)
	if err != nil {
		return nil, err
	}
	if s != nil {
		return s.walk(c, src, dst, pairs[0], f)
	}
	return c.walkPair(src, dst, pairs[0], f)
}

func (c *Cluster) walkPair(src, dst End, pair Pair, f Flow) (*Trace, error) {
	d, err := c.Judge(src, dst, pair, f)
	if err != nil {
		return nil, err
	}
	f = f.between(pair)
	t := &Trace{Src: src.Name, Dst: dst.Name, SrcAddr: pair.Src, DstAddr: pair.Dst, Proto: ProtocolName(f.Protocol), Port: f.Port,
		Verdict: word(d.Allowed), DecidedBy: append([]rule.PolicyRef{}, d.DecidedBy...), Reason: d.Reason, Audit: d.Audit}
	if src.same(dst, pair) {
		t.Egress, t.Ingress = unjudged(src, SamePod), unjudged(dst, SamePod)
		return t, nil
	}
	c.Read(func(v store.View) {
		t.Egress = c.leg(v, rule.Egress, src, dst, pair.Src, pair.Dst, f)
		t.Ingress = c.leg(v, rule.Ingress, dst, src, pair.Dst, pair.Src, f)
	})
	return t, t.agree(c, src, dst, pair, f)
}

// agree compares the walk with what the compiled rules say.
func (t *Trace) agree(c *Cluster, src, dst End, pair Pair, f Flow) error {
	for dir, leg := range []*Leg{rule.Ingress: &t.Ingress, rule.Egress: &t.Egress} {
		d, err := c.Direction(rule.Direction(dir), src, dst, pair, f)
		if err != nil {
			return err
		}
		if d.Allowed != (leg.Verdict == Allow) || d.Audit != leg.Audit || d.Reason != leg.reason || !sameRefs(d.DecidedBy, leg.refs) {
			return fmt.Errorf("%s of %s to %s %s: the compiled rules say %s by %s, the policies %s by %s: please report this",
				rule.Direction(dir), t.Src, t.Dst, f, word(d.Allowed), d.Text(), leg.Verdict, RefsText(leg.refs))
		}
	}
	return nil
}

// sameRefs compares in any order: policies that isolate together have none.
func sameRefs(a, b []rule.PolicyRef) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(r rule.PolicyRef) bool { return !slices.Contains(b, r) })
}

func word(allowed bool) string {
	if allowed {
		return Allow
	}
	return Deny
}

func unjudged(e End, why string) Leg {
	l := Leg{Verdict: Allow, Why: why, Tiers: []TierWalk{}, Unbound: []Selection{}}
	if e.Pod != nil {
		l.Pod = e.Pod.Key().String()
	}
	return l
}

func (c *Cluster) leg(v store.View, dir rule.Direction, subject, remote End, own, addr netip.Addr, f Flow) Leg {
	switch {
	case subject.Pod == nil:
		return unjudged(subject, "not a pod: no policy is about it")
	case subject.Pod.HostNetwork:
		return unjudged(subject, "in the host network: no policy is about it")
	}
	l := unjudged(subject, "")
	l.Judged = true
	m := newMatcher(v, c.domains, dir, subject, remote, own, addr, f)
	l.Unbound = notSelecting(v, m.subject, dir)
	now, staged := resolve.InForce(v, resolve.Selecting(v, m.subject), dir)
	l.walk(v, m, now)
	if staged != nil && l.Verdict == Allow && !l.Audit {
		next := unjudged(subject, "")
		next.walk(v, m, staged)
		l.Staged = next.Tiers
		if next.Verdict == Deny {
			l.Audit, l.refs, l.reason = true, next.refs, next.reason
			l.Why += "; staged: " + next.Why
		}
	}
	return l
}

// walk walks policies in the order of judgement.
func (l *Leg) walk(v store.View, m *matcher, policies []*policy.Policy) {
	if m.dir == rule.Ingress {
		var first []*policy.Policy
		if first, policies = resolve.BeforeOwnNode(policies); l.tiers(v, m, first) {
			return
		}
		if slices.Contains(nodeAddrs(v, m.site.Node), m.addr) {
			l.reason, l.Why = resolve.OwnNode, fmt.Sprintf("%s is the node that the pod runs on, which always reaches it", m.addr)
			return
		}
	}
	if l.tiers(v, m, policies) {
		return
	}
	l.Why = "no policy decides"
	if len(l.Tiers) == 0 {
		l.Why = fmt.Sprintf("no policy selects the pod for %s", m.dir)
	}
}

// tiers walks tiers and reports whether one decided.
func (l *Leg) tiers(v store.View, m *matcher, policies []*policy.Policy) bool {
	for len(policies) > 0 {
		n := 1
		for n < len(policies) && policies[n].Tier == policies[0].Tier {
			n++
		}
		if l.tier(v, m, policies[:n]) {
			return true
		}
		policies = policies[n:]
	}
	return false
}

// rulePath names a rule within its policy.
func rulePath(d rule.Direction, r *policy.Rule) string {
	if r.Index == rule.DefaultRule { // stands for an object that is not valid
		return "all " + d.String()
	}
	return strings.TrimPrefix(RuleField(d, r), "spec.")
}

// tier walks one tier and reports whether it decided.
func (l *Leg) tier(v store.View, m *matcher, policies []*policy.Policy) bool {
	t := TierWalk{Name: policies[0].Tier.Name, Outcome: "pass", Why: "no rule matches: left to the next tier"}
	audit, decided := true, false
	var isolating []rule.PolicyRef
walk:
	for _, p := range policies {
		section := resolve.Section(p, m.dir)
		w := PolicyWalk{Kind: p.Origin.Kind, Namespace: p.Origin.Namespace, Name: p.Origin.Name,
			Audit: v.Audit(p), Rejected: p.Rejected, Staged: p.Staged, Isolates: section.Default == policy.Deny, Rules: []RuleWalk{}}
		for i := range section.Rules {
			r := &section.Rules[i]
			matched, why := m.rule(r)
			w.Rules = append(w.Rules, RuleWalk{Rule: rulePath(m.dir, r), Action: actionWord(r.Action), Matched: matched, Why: why})
			if !matched || r.Action == policy.Next {
				continue
			}
			ref := resolve.RefOf(p, r, m.dir)
			t.Policies = append(t.Policies, w)
			t.Outcome, t.Why = actionWord(r.Action), RefText(ref)
			if decided = r.Action != policy.Pass; decided {
				l.decide(r.Action == policy.Allow, r.Action == policy.Deny && v.Audit(p), []rule.PolicyRef{ref})
			}
			isolating = nil
			break walk
		}
		t.Policies = append(t.Policies, w)
		if section.Default == policy.Deny {
			audit = audit && v.Audit(p)
			if ref := resolve.Ref(p, rule.DefaultRule, m.dir); !slices.Contains(isolating, ref) {
				isolating = append(isolating, ref)
			}
		}
	}
	if isolating != nil {
		decided = true
		t.Outcome, t.Why = Deny, "isolated: "+RefsText(isolating)
		l.decide(false, audit, isolating)
	}
	l.Tiers = append(l.Tiers, t)
	if decided {
		l.Why = t.Why
	}
	return decided
}

func (l *Leg) decide(allow, audit bool, refs []rule.PolicyRef) {
	l.Verdict, l.Audit, l.refs = word(allow || audit), audit, refs
}

func actionWord(a policy.Action) string {
	return [...]string{policy.Pass: "pass", policy.Allow: Allow, policy.Deny: Deny, policy.Next: "log"}[a]
}

// notSelecting lists the policies that could select a pod, by scope, but
// don't.
func notSelecting(v store.View, id *store.Identity, dir rule.Direction) []Selection {
	out := []Selection{}
	for _, ns := range [2]string{"", id.Entity.Namespace} {
		for p := range v.Policies(ns) {
			if !resolve.Section(p, dir).Applies || p.Staged || p.Selects(&id.Entity) || len(p.Subject) == 0 {
				continue
			}
			out = append(out, Selection{p.Origin.String(), Mismatch(p.Subject[0], &id.Entity)})
		}
	}
	return out
}
