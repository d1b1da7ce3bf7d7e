package control

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/text"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

func keyOf(o policy.Origin) api.PolicyKey { return api.PolicyKey(o) }

// Policies implements api.Agent.
func (a *Agent) Policies(of api.Which) []api.Policy {
	q := policyQuery{of: of, hits: a.hits(), rejected: map[string][]policy.Rejection{}, found: map[policy.Origin]int{}, out: []api.Policy{}}
	for _, r := range a.source.State().Rejections {
		q.rejected[r.Object] = append(q.rejected[r.Object], r)
	}
	a.mu.Lock()
	loop := a.status
	a.mu.Unlock()
	pods := a.localPods()
	a.store.Read(func(v store.View) { q.read(v, &loop, pods) })
	q.addIllegible()
	if t, ok := a.source.(Tracer); ok {
		for i := range q.out {
			source, version := t.Whence(policy.Origin(q.out[i].PolicyKey))
			q.out[i].Source = strings.TrimSpace(source + " " + version)
		}
	}
	return q.out
}

func (a *Agent) localPods() (keys []store.Key) {
	for _, e := range a.plane.Endpoints() {
		keys = append(keys, store.Key{Namespace: e.Namespace, Name: e.Name})
	}
	return keys
}

// ruleHits are verdicts by what gave them: a rule or a default of a policy, and
// with a Rule of wholePolicy all of them together.
type ruleHits map[rule.PolicyRef]stat.Hit

const wholePolicy = -2

func (a *Agent) hits() ruleHits {
	out := ruleHits{}
	add := func(ref rule.PolicyRef, h stat.Hit) {
		sum := out[ref]
		sum.Add(h)
		out[ref] = sum
	}
	a.plane.Hits(func(id rule.CauseID, h stat.Hit) {
		for _, ref := range a.Cause(id).Refs {
			ref.Tier = "" // its policy says it
			add(ref, h)
			add(wholeRef(policy.Origin{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}), h)
		}
	})
	return out
}

func wholeRef(o policy.Origin) rule.PolicyRef {
	return rule.PolicyRef{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, Rule: wholePolicy}
}

func (h ruleHits) of(p *policy.Policy, r *policy.Rule, dir rule.Direction) api.Hits {
	ref := resolve.Ref(p, rule.DefaultRule, dir)
	if r != nil {
		ref = resolve.RefOf(p, r, dir)
	}
	ref.Tier = ""
	return hitsOf(h[ref])
}

func hitsOf(h stat.Hit) api.Hits {
	out := api.Hits{Allowed: h.Allowed, Denied: h.Denied, Audited: h.Audited}
	if h.LastNs > 0 {
		last := time.Unix(0, h.LastNs)
		out.Last = &last
	}
	return out
}

// policyQuery gathers what is known of the policies that are asked for.
type policyQuery struct {
	of       api.Which
	hits     ruleHits
	rejected map[string][]policy.Rejection // by object
	found    map[policy.Origin]int         // index in out
	out      []api.Policy
}

func (q *policyQuery) wants(o policy.Origin) bool {
	return (q.of.Kind == "" || strings.EqualFold(q.of.Kind, o.Kind)) && (q.of.Namespace == "" || q.of.Namespace == o.Namespace) &&
		(q.of.Name == "" || q.of.Name == o.Name)
}

func (q *policyQuery) read(v store.View, loop *loopStatus, pods []store.Key) {
	all := slices.SortedStableFunc(v.AllPolicies(), (*policy.Policy).Compare)
	fresh := map[policy.Origin]bool{} // not in force yet
	changes, ok := v.Since(loop.store)
	for _, c := range changes {
		fresh[c.Policy] = true
	}
	for i, p := range all {
		if !q.wants(p.Origin) {
			continue
		}
		at, seen := q.found[p.Origin]
		if !seen {
			at = len(q.out)
			q.found[p.Origin] = at
			q.out = append(q.out, api.Policy{PolicyKey: keyOf(p.Origin), Endpoints: []string{},
				Hits: hitsOf(q.hits[wholeRef(p.Origin)]), Rejections: rejections(q.rejected[p.Origin.String()])})
		}
		x := &q.out[at]
		x.Parts = append(x.Parts, q.part(p, i+1))
		for _, key := range pods {
			if id := v.PodIdentity(key); id != nil && p.Selects(&id.Entity) && !slices.Contains(x.Endpoints, key.String()) {
				x.Endpoints = append(x.Endpoints, key.String())
			}
		}
		slices.Sort(x.Endpoints)
		x.State = stateOf(v, p, x, !ok || !loop.ready || fresh[p.Origin])
	}
}

// stateOf judges an object by one of its policies and what was found before.
func stateOf(v store.View, p *policy.Policy, x *api.Policy, pending bool) string {
	outdated := slices.ContainsFunc(x.Parts, func(part api.Part) bool { return part.Closes != p.Rejected })
	switch {
	case pending:
		return api.PolicyPending
	case outdated:
		return api.PolicyOutdated
	case p.Rejected:
		return api.PolicyRejected
	case len(x.Rejections) > 0:
		return api.PolicyPartly
	case p.Staged:
		return api.PolicyStaged
	case v.Audit(p):
		return api.PolicyAudit
	}
	return api.PolicyEnforced
}

func (q *policyQuery) part(p *policy.Policy, place int) api.Part {
	out := api.Part{Place: place, Tier: cmp.Or(p.TierName, p.Tier.Name), TierOrder: p.Tier.Order, Order: p.Order, Closes: p.Rejected, Subject: []string{}}
	for _, s := range p.Subject {
		out.Subject = append(out.Subject, text.Selector(s))
	}
	for d, at := range []**api.Section{rule.Ingress: &out.Ingress, rule.Egress: &out.Egress} {
		dir := rule.Direction(d)
		from := resolve.Section(p, dir)
		if !from.Applies {
			continue
		}
		s := &api.Section{Default: "pass", Rules: []api.PolicyRule{}}
		if from.Default == policy.Deny {
			s.Default, s.Hits = "deny", q.hits.of(p, nil, dir)
		}
		for i := range from.Rules {
			r := &from.Rules[i]
			s.Rules = append(s.Rules, ruleOf(r, q.hits.of(p, r, dir)))
		}
		*at = s
	}
	return out
}

var actionNames = [...]string{policy.Pass: "pass", policy.Allow: "allow", policy.Deny: "deny", policy.Next: "next"}

func ruleOf(r *policy.Rule, hits api.Hits) api.PolicyRule {
	out := api.PolicyRule{Rule: r.Index, Path: r.Path, Action: actionNames[r.Action], Log: r.Log,
		Peers: text.Peers(r.Peers), Ports: text.Ports(r.Ports), Hits: hits}
	if r.AnyPeer {
		out.Peers = []string{"any"}
	}
	if r.AnyPort {
		out.Ports = []string{"any"}
	}
	for _, list := range r.And {
		out.And = append(out.And, strings.Join(text.Peers(list), " or "))
	}
	for _, list := range r.Local {
		out.And = append(out.And, "itself "+strings.Join(text.Peers(list), " or "))
	}
	out.Not = append(out.Not, text.Peers(r.Not)...)
	for _, p := range r.NotPorts {
		out.Not = append(out.Not, "port "+text.Port(p))
	}
	for i := range r.NotLocal {
		out.Not = append(out.Not, "itself "+text.Peer(&r.NotLocal[i]))
	}
	return out
}

// addIllegible adds rejected policies that nothing could be made of.
func (q *policyQuery) addIllegible() {
	for object, list := range q.rejected {
		kind, name, _ := strings.Cut(object, " ")
		o := policy.Origin{Kind: kind, Name: name}
		if ns, name, ok := strings.Cut(name, "/"); ok {
			o.Namespace, o.Name = ns, name
		}
		if _, there := q.found[o]; there || !strings.HasSuffix(kind, "Policy") || !q.wants(o) {
			continue
		}
		q.found[o] = len(q.out)
		q.out = append(q.out, api.Policy{PolicyKey: keyOf(o), State: api.PolicyRejected, Endpoints: []string{}, Parts: []api.Part{},
			Rejections: rejections(list)})
	}
	place := func(p *api.Policy) int {
		if len(p.Parts) == 0 {
			return int(^uint(0) >> 1)
		}
		return p.Parts[0].Place
	}
	slices.SortStableFunc(q.out, func(x, y api.Policy) int {
		return cmp.Or(cmp.Compare(place(&x), place(&y)), policy.Origin(x.PolicyKey).Compare(policy.Origin(y.PolicyKey)))
	})
}
