// Package lint finds what is wrong, or useless, in a folder of manifests:
// objects that are not valid by the API's own rules, selectors that select
// nothing, rules that never decide, policies without effect.
//
// What rules do is not guessed from how they look: they are compiled, and all
// packets that they could tell apart are judged. So it works for
// every policy language, and costs time in proportion to programs × classes of
// peers × ranges of ports.
package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// Severity says how bad a finding is.
type Severity string

// Severities, the worst first.
const (
	Error   Severity = "error"   // not in force as written
	Warning Severity = "warning" // most likely not what was meant
	Info    Severity = "info"    // good to know
)

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"`            // a fixed name for what kind of finding it is
	Object   string   `json:"object,omitempty"` // Kind namespace/name
	Field    string   `json:"field,omitempty"`
	Message  string   `json:"message"`
	Source   string   `json:"source,omitempty"` // file and document
}

// Checks by name.
const (
	CheckInvalid       = "invalid"
	CheckUnknownField  = "unknown-field"
	CheckUnquoted      = "unquoted-text"
	CheckSkipped       = "kind-not-used"
	CheckAddress       = "duplicate-address"
	CheckNamespace     = "no-such-namespace"
	CheckSelectsNone   = "selects-nothing"
	CheckNamedPort     = "no-such-port"
	CheckTier          = "no-such-tier"
	CheckShadowed      = "shadowed-rule"
	CheckNoEffect      = "no-effect"
	CheckPodUnselected = "pod-without-policy"
)

// Run lints a cluster. Findings are sorted, the worst first.
func Run(c *verdict.Cluster) []Finding {
	l := &linter{said: map[string]bool{}}
	l.source(c)
	set, _ := c.Compile()
	c.Read(func(v store.View) {
		l.view = v
		l.addresses()
		l.objects()
		for _, p := range policies(v) {
			l.policy(p)
		}
		l.unselected()
		l.effects(set, policies(v))
	})
	order := []Severity{Error, Warning, Info}
	slices.SortFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)),
			cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Source, b.Source),
			cmp.Compare(a.Check, b.Check), cmp.Compare(a.Message, b.Message))
	})
	return l.findings
}

type linter struct {
	view     store.View
	findings []Finding
	said     map[string]bool // policies and rules that something was said about
}

func (l *linter) add(s Severity, check, object, field, message string) {
	l.findings = append(l.findings, Finding{Severity: s, Check: check, Object: object, Field: field, Message: message})
}

func policies(v store.View) []*policy.Policy {
	out := slices.Collect(v.AllPolicies())
	slices.SortFunc(out, (*policy.Policy).Compare)
	return out
}

// source repeats what reading found.
func (l *linter) source(c *verdict.Cluster) {
	for _, r := range c.State.Rejections {
		f := Finding{Severity: Error, Check: CheckInvalid, Object: r.Object, Field: r.Field,
			Message: r.Reason + ": " + r.Effect, Source: r.Source}
		if strings.HasSuffix(r.Reason, policy.UnknownField) {
			f.Check = CheckUnknownField
		}
		l.findings = append(l.findings, f)
	}
	for _, note := range c.State.Notes {
		switch {
		case strings.HasSuffix(note, ", ignored"): // kubectl refuses these
			l.unknownField(note)
		case strings.HasSuffix(note, manifest.Quote):
			source, text, _ := strings.Cut(note, ": ")
			l.findings = append(l.findings, Finding{Severity: Warning, Check: CheckUnquoted, Message: text, Source: source})
		case strings.Contains(note, "Policy"): // a policy that nothing enforces
			l.add(Warning, CheckSkipped, "", "", note)
		default:
			l.add(Info, CheckSkipped, "", "", note)
		}
	}
}

// unknownField takes a note apart: source, object, message.
func (l *linter) unknownField(note string) {
	f := Finding{Severity: Error, Check: CheckUnknownField, Message: note}
	if parts := strings.SplitN(note, ": ", 3); len(parts) == 3 {
		f.Source, f.Object, f.Message = parts[0], parts[1], parts[2]
	}
	l.findings = append(l.findings, f)
}

// addresses finds pods that no packet can tell from one another.
func (l *linter) addresses() {
	for p := range l.view.Pods() {
		if p.HostNetwork {
			continue
		}
		for _, a := range p.Addrs() {
			for _, other := range l.view.PodsAt(a) {
				if other != p {
					l.add(Error, CheckAddress, "Pod "+p.Key().String(), "status.podIPs",
						fmt.Sprintf("address %s is also that of pod %s", a, other.Key()))
				}
			}
			for n := range l.view.Nodes() {
				if slices.Contains(n.Addrs, a) {
					l.add(Error, CheckAddress, "Pod "+p.Key().String(), "status.podIPs",
						fmt.Sprintf("address %s is also that of node %s", a, n.Name))
				}
			}
		}
	}
}

// policy looks at one policy by itself.
func (l *linter) policy(p *policy.Policy) {
	object := p.Origin.String()
	if p.Rejected {
		l.said[object] = true
		return
	}
	if ns := p.Origin.Namespace; ns != "" && l.view.NamespaceLabels(ns) == nil {
		l.said[object] = true
		l.add(Warning, CheckNamespace, object, "metadata.namespace", "namespace "+ns+" does not exist, and no pod is in it")
		return
	}
	if p.TierObject && l.view.Tier(p.Tier.Name) == nil {
		l.add(Warning, CheckTier, object, "spec.tier", "tier "+p.Tier.Name+" does not exist: judged after all others, and closed at its end")
	}
	subject := l.matching(p.Subject)
	if len(subject) == 0 && len(p.Subject) > 0 {
		l.said[object] = true
		var texts []string
		for _, s := range p.Subject {
			texts = append(texts, those(s))
		}
		l.add(Warning, CheckSelectsNone, object, "spec", "selects no pod: there are no "+strings.Join(texts, ", nor "))
		return
	}
	for _, dir := range []rule.Direction{rule.Ingress, rule.Egress} {
		section := resolve.Section(p, dir)
		if !section.Applies {
			continue
		}
		for i := range section.Rules {
			l.rule(p.Origin.Kind, object, dir, &section.Rules[i], subject)
		}
	}
}

func (l *linter) matching(selectors []*policy.Selector) []*store.Identity {
	var out []*store.Identity
	for id := range l.view.IdentitiesSince(0) {
		if slices.ContainsFunc(selectors, func(s *policy.Selector) bool { return s.Matches(&id.Entity) }) {
			out = append(out, id)
		}
	}
	return out
}

// unselected finds pods that are open to all.
func (l *linter) unselected() {
	for p := range l.view.Pods() {
		id := l.view.PodIdentity(p.Key())
		if id != nil && p.Phase != store.Finished && len(resolve.Selecting(l.view, id)) == 0 {
			l.add(Info, CheckPodUnselected, "Pod "+p.Key().String(), "", "no policy selects it: all traffic is allowed")
		}
	}
}
