package control

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// Wait implements api.Agent. It looks after each turn of the loop, which is what
// puts things in force.
func (a *Agent) Wait(ctx context.Context, w api.WaitFor) (api.Waited, error) {
	for {
		turned := a.sandboxes.nextTurn()
		got, missing := a.reached(&w)
		if missing == "" {
			return got, nil
		}
		select {
		case <-turned:
		case <-ctx.Done():
			return got, fmt.Errorf("%w: %s", api.ErrNotInForce, missing)
		}
	}
}

// reached says what is missing until w holds; nothing if it does.
func (a *Agent) reached(w *api.WaitFor) (got api.Waited, missing string) {
	// What the store holds at a generation that is published is in force: the
	// order of these two looks matters.
	var at uint64
	if w.Policy.Name != "" {
		if at, missing = a.stored(w, &got); missing != "" {
			return got, missing
		}
	}
	a.mu.Lock()
	loop := a.status
	a.mu.Unlock()
	got.Generation = loop.generation
	switch {
	case loop.generation < w.Generation:
		return got, fmt.Sprintf("generation %d is in force, not %d", loop.generation, w.Generation)
	case !loop.ready:
		return got, "the agent does not know the whole cluster yet"
	case loop.store < at && loop.err != nil:
		return got, "the last changes could not be applied: " + loop.err.Error()
	case loop.store < at:
		return got, "it is known but not in force yet"
	}
	return got, ""
}

// stored looks whether the store has what a wait is for, and as of which
// generation.
func (a *Agent) stored(w *api.WaitFor, got *api.Waited) (generation uint64, missing string) {
	q := policyQuery{of: api.Which(w.Policy)}
	// Versions first: what is read of the store after them is as new at least.
	asked, _, _ := a.there(w, &q)
	missing = a.older(asked, w.ResourceVersion)
	there, valid, generation := a.there(w, &q)
	for _, o := range there {
		got.Policies = append(got.Policies, keyOf(o))
	}
	name := strings.TrimSpace(w.Policy.String()) // the kind may be empty
	switch {
	case w.Gone && len(there) > 0:
		return 0, there[0].String() + " is still there"
	case len(there) == 0 && !w.Gone:
		return 0, "policy " + name + " is not known" + a.whyRejected(&q)
	case !valid:
		return 0, "policy " + name + " is not valid" + a.whyRejected(&q)
	case missing == "" && w.ResourceVersion != "" && !slices.Equal(asked, there):
		missing = "policy " + name + " has just changed"
	}
	return generation, missing
}

// there lists the policies that a wait is for, and whether all are valid, as of a
// generation of the store.
func (a *Agent) there(w *api.WaitFor, q *policyQuery) (list []policy.Origin, valid bool, generation uint64) {
	valid = true
	a.store.Read(func(v store.View) {
		generation = v.Generation()
		for p := range v.Policies(w.Policy.Namespace) {
			if q.wants(p.Origin) {
				list = append(list, p.Origin)
				valid = valid && !p.Rejected
			}
		}
	})
	slices.SortFunc(list, policy.Origin.Compare)
	return slices.Compact(list), valid, generation
}

// whyRejected says why a policy is rejected, if it is.
func (a *Agent) whyRejected(q *policyQuery) string {
	for _, r := range a.source.State().Rejections {
		kind, name, _ := strings.Cut(r.Object, " ")
		o := policy.Origin{Kind: kind, Name: name}
		if ns, name, ok := strings.Cut(name, "/"); ok {
			o.Namespace, o.Name = ns, name
		}
		if q.wants(o) {
			return fmt.Sprintf(": %s: %s", r.Field, r.Reason)
		}
	}
	return ""
}

// older says which of some policies is of an older version than is wanted.
func (a *Agent) older(of []policy.Origin, version string) string {
	if version == "" {
		return ""
	}
	want, err := strconv.ParseUint(version, 10, 64)
	t, ok := a.source.(Tracer)
	if err != nil || !ok {
		return "versions of objects are not known here"
	}
	for _, o := range of {
		_, now := t.Whence(o)
		if have, err := strconv.ParseUint(now, 10, 64); err != nil || have < want {
			return fmt.Sprintf("%s is known as of version %s, not %s", o, now, version)
		}
	}
	return ""
}
