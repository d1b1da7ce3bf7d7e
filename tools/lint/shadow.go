package lint

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// effects finds rules that never decide, and policies that change nothing.
// Both hold for the pods that there are.
func (l *linter) effects(set *rule.Set, policies []*policy.Policy) {
	var own []netip.Addr
	for p := range l.view.Pods() {
		own = append(own, p.Addrs()...)
	}
	for n := range l.view.Nodes() {
		own = append(own, n.Addrs...)
	}
	audit := map[policy.Origin]bool{}
	for _, p := range policies {
		audit[p.Origin] = l.view.Audit(p)
	}
	j := newJudge(set, own, audit)
	j.run()
	for _, p := range policies {
		object := p.Origin.String()
		if l.said[object] || p.Staged {
			continue
		}
		for _, dir := range []rule.Direction{rule.Ingress, rule.Egress} {
			section := resolve.Section(p, dir)
			if !section.Applies {
				continue
			}
			for i := range section.Rules {
				l.ruleEffect(j, p, dir, section, i)
			}
		}
		if !j.effect[p.Origin] && !l.said[object] {
			l.said[object] = true
			l.add(Info, CheckNoEffect, object, "", "without it every verdict would be the same, as things are")
		}
	}
}

// ruleEffect says so if a rule has no say that another one doesn't have.
func (l *linter) ruleEffect(j *judge, p *policy.Policy, dir rule.Direction, section *policy.Section, i int) {
	r := &section.Rules[i]
	object, path := p.Origin.String(), verdict.RuleField(dir, r)
	if l.said[object+path] || r.Action == policy.Next {
		return
	}
	l.said[object+path] = true
	u := j.find(resolve.RefOf(p, r, dir))
	switch {
	case u == nil && byName(r):
		l.said[object] = true // what the names resolve to is not known: it may well have an effect
		return
	case u == nil:
		l.add(Warning, CheckNoEffect, object, path, "matches no packet of the pods that there are")
		return
	case u.decided == 0:
		l.add(j.shadowSeverity(u, section.Rules[i].Action), CheckShadowed, object, path,
			"never decides: all that it matches is decided before, by "+j.names(u.by))
		return
	}
	// A later rule that does the same and matches all that this one does.
	for k := i + 1; k < len(section.Rules) && section.Rules[k].Action == r.Action; k++ {
		wider := j.cause(resolve.RefOf(p, &section.Rules[k], dir))
		if wider != rule.NoCause && u.within[wider] == u.matched {
			l.add(Warning, CheckShadowed, object, path, "is needless: "+
				strings.TrimPrefix(verdict.RuleField(dir, &section.Rules[k]), "spec.")+" of the same policy matches all that it does")
			return
		}
	}
}

// byName reports whether a rule is about domain names.
func byName(r *policy.Rule) bool {
	return slices.ContainsFunc(r.Peers, func(p policy.Peer) bool { return p.Domain != "" || p.Name != nil })
}

// shadowSeverity: that several policies allow the same is no mistake.
func (j *judge) shadowSeverity(u *usage, action policy.Action) Severity {
	for cause := range u.by {
		for _, ref := range j.set.Causes[cause].Refs {
			if origin(ref) == origin(u.ref) {
				return Warning
			}
			if ref.Rule != rule.DefaultRule && (ref.Tier != u.ref.Tier || action != policy.Allow) {
				return Warning
			}
		}
	}
	return Info
}

func (j *judge) cause(ref rule.PolicyRef) rule.CauseID {
	return rule.CauseID(max(0, slices.IndexFunc(j.set.Causes, func(c rule.Cause) bool {
		return len(c.Refs) == 1 && c.Refs[0] == ref
	})))
}

func (j *judge) find(ref rule.PolicyRef) *usage { return j.usage[j.cause(ref)] }
