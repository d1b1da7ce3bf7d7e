package compile_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

func isolate(name string) *policy.Policy {
	return &policy.Policy{Origin: policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: name},
		Tier:    policy.TierNetworkPolicy,
		Subject: []*policy.Selector{policy.NewSelector(policy.SelectorSpec{Namespace: "a"})},
		Ingress: policy.Section{Applies: true, Default: policy.Deny, Rules: []policy.Rule{
			{Action: policy.Allow, AnyPeer: true, Ports: []policy.Port{{Protocol: policy.TCP, From: 1, To: 1}}}}}}
}

// causeOf finds the number of a policy's rule in a Set's programs.
func causeOf(set *rule.Set, name string) rule.CauseID {
	for _, p := range set.Programs {
		for _, t := range p.Tiers {
			for _, r := range t.Rules {
				if refs := set.Causes[r.Cause].Refs; len(refs) == 1 && refs[0].Name == name {
					return r.Cause
				}
			}
		}
	}
	return rule.NoCause
}

func TestCauses(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) {
		tx.SetPod(&store.Pod{Namespace: "a", Name: "x"})
		tx.SetPolicy(isolate("stays"))
		tx.SetPolicy(isolate("returns"))
	})
	endpoints := []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "x"}}
	c := compile.New(compile.Config{})
	first := compileNow(c, st, endpoints)
	if len(first.Causes[0].Refs) > 0 || first.Causes[0].Text != "" {
		t.Errorf("cause 0 is %+v", first.Causes[0])
	}
	stays, returns := causeOf(first, "stays"), causeOf(first, "returns")
	if stays == 0 || returns == 0 || stays == returns {
		t.Fatalf("causes %d and %d", stays, returns)
	}
	kept := slices.Clone(first.Causes)

	away := policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: "returns"}
	st.Update(func(tx *store.Tx) { tx.DeletePolicy(away) })
	gone := compileNow(c, st, endpoints)
	if got := gone.Causes[returns].Refs; len(got) != 1 || got[0].Name != "returns" {
		t.Errorf("in quarantine, cause %d is %v", returns, got)
	}
	st.Update(func(tx *store.Tx) { tx.SetPolicy(isolate("returns")) })
	if got := causeOf(compileNow(c, st, endpoints), "returns"); got != returns {
		t.Errorf("the returned policy has cause %d, before %d", got, returns)
	}

	// Each step needs two new causes: a rule's and an isolation's.
	highest := 0
	var once rule.CauseID
	for i := range 10000 {
		st.Update(func(tx *store.Tx) {
			tx.DeletePolicy(policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: fmt.Sprint(i - 1)})
			tx.SetPolicy(isolate(fmt.Sprint(i)))
		})
		set := compileNow(c, st, endpoints)
		if i == 0 {
			once = causeOf(set, "0")
		}
		if causeOf(set, "stays") != stays || causeOf(set, "returns") != returns {
			t.Fatalf("step %d: living policies have causes %d and %d", i, causeOf(set, "stays"), causeOf(set, "returns"))
		}
		if i < 4096 && set.Causes[once].Refs[0].Name != "0" {
			t.Fatalf("cause %d was reused after %d Sets", once, i)
		}
		highest = len(set.Causes)
	}
	if highest > 17000 {
		t.Errorf("%d causes: freed ones are not reused", highest)
	}
	for i := range kept {
		if !slices.Equal(first.Causes[i].Refs, kept[i].Refs) {
			t.Errorf("cause %d of a published Set has changed", i)
		}
	}
}

// TestCausesAreFreed follows policies that come and go under ever new names: only a
// new Set frees the causes of those that have gone, so one must be due in time,
// however many had been in use before.
func TestCausesAreFreed(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) { tx.SetPod(&store.Pod{Namespace: "a", Name: "x"}) })
	endpoints := []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "x"}}
	c := compile.New(compile.Config{})
	compileNow(c, st, endpoints)
	const atOnce = 500 // policies, each with a rule and an isolation
	since := 0
	for i := range 100 {
		st.Update(func(tx *store.Tx) {
			for k := range atOnce {
				tx.DeletePolicy(policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: fmt.Sprint(i-1, " ", k)})
				tx.SetPolicy(isolate(fmt.Sprint(i, " ", k)))
			}
		})
		due := false
		st.Read(func(v store.View) {
			_, ok := c.Update(compile.Input{View: v, Node: node, Endpoints: endpoints})
			due = !ok
		})
		if since++; due {
			compileNow(c, st, endpoints)
			since = 0
		}
		if since > 12 {
			t.Fatalf("step %d: no new Set for %d steps", i, since)
		}
	}
}

func TestUnknownPod(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) {
		tx.SetNode(&store.Node{Name: node, Addrs: addrs("192.168.0.1")})
		tx.SetPod(&store.Pod{Namespace: "a", Name: "x", UID: "1"})
		tx.SetPod(&store.Pod{Namespace: "a", Name: "host", HostNetwork: true})
	})
	set := compileNow(compile.New(compile.Config{}), st, []endpoint.Endpoint{
		{ID: 2, Namespace: "a", Name: "not-there"}, {ID: 1, Namespace: "a", Name: "x", UID: "2"}, {ID: 3, Namespace: "a", Name: "host"}})
	for i, e := range set.Endpoints {
		if e.ID != endpoint.ID(i+1) {
			t.Errorf("endpoint %d in place %d", e.ID, i)
		}
		for _, id := range []rule.ProgramID{e.Ingress, e.Egress} {
			tiers := set.Programs[id].Tiers
			if len(tiers) != 1 || len(tiers[0].Rules) > 0 || tiers[0].Default != rule.Deny ||
				set.Causes[tiers[0].DefaultCause].Text != compile.UnknownPod {
				t.Errorf("endpoint %d: %+v", e.ID, tiers)
			}
		}
	}
}

// TestSameInputSameSet compiles equal input that came in another order.
func TestSameInputSameSet(t *testing.T) {
	build := func(reverse bool) string {
		st := store.New()
		var fill []func(*store.Tx)
		for i := range 40 {
			fill = append(fill, func(tx *store.Tx) { tx.SetPod(benchPod(i, fmt.Sprintf("ns-%d", i%3), i%4 == 0)) })
			fill = append(fill, func(tx *store.Tx) {
				p := isolate(fmt.Sprint("p", i))
				p.Ingress.Rules[0].AnyPeer = false
				p.Ingress.Rules[0].Peers = []policy.Peer{{Selector: policy.NewSelector(policy.SelectorSpec{
					Labels: []policy.Requirement{{Key: "app", Values: []string{fmt.Sprintf("app-%d", i%10)}}}})}}
				p.Subject = []*policy.Selector{policy.NewSelector(policy.SelectorSpec{Namespace: fmt.Sprintf("ns-%d", i%3)})}
				p.Origin.Namespace = fmt.Sprintf("ns-%d", i%3)
				tx.SetPolicy(p)
			})
		}
		var endpoints []endpoint.Endpoint
		for i := 0; i < 40; i += 4 {
			endpoints = append(endpoints, endpoint.Endpoint{ID: endpoint.ID(i + 1), Namespace: fmt.Sprintf("ns-%d", i%3), Name: fmt.Sprintf("pod-%d", i)})
		}
		if reverse {
			slices.Reverse(fill)
			slices.Reverse(endpoints)
		}
		for _, f := range fill {
			st.Update(f)
		}
		set := compileNow(compile.New(compile.Config{}), st, endpoints)
		return fmt.Sprintf("%+v", *set)
	}
	if a, b := build(false), build(true); a != b {
		t.Errorf("two orders, two Sets:\n%s\n%s", a, b)
	}
}
