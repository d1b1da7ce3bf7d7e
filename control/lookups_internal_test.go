package control

import (
	"fmt"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// TestDomainsAreForgotten has policies come and go that name a domain each.
func TestDomainsAreForgotten(t *testing.T) {
	st := store.New()
	key := store.Key{Namespace: "a", Name: "x"}
	st.Update(func(tx *store.Tx) { tx.SetPod(&store.Pod{Namespace: key.Namespace, Name: key.Name}) })
	l := lookups{naming: map[policy.Origin]struct{}{}}
	for i := range 20 {
		domain := fmt.Sprintf("d%d.test", i)
		p := &policy.Policy{Origin: policy.Origin{Kind: "Any", Name: "p"}, Subject: []*policy.Selector{policy.NewSelector(policy.SelectorSpec{})},
			Egress: policy.Section{Applies: true, Rules: []policy.Rule{{Action: policy.Allow, AnyPort: true, Peers: []policy.Peer{{Domain: domain}}}}}}
		st.Update(func(tx *store.Tx) { tx.SetPolicy(p) })
		l.note(p)
		for range 2 {
			l.begin()
			st.Read(func(v store.View) {
				if names, _ := l.learns(v, v.PodIdentity(key)); len(names) != 1 || !names[0].Matches(domain) {
					t.Fatalf("names %v", names)
				}
			})
		}
	}
	if n := len(l.domain) + len(l.before); n > 2 {
		t.Errorf("%d domains are remembered", n)
	}
}
