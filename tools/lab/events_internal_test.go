package lab

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// TestAnswer sets what packets did against each thing the dataplane may say.
func TestAnswer(t *testing.T) {
	src, dst := netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:80")
	egress := rule.PolicyRef{Kind: "NetworkPolicy", Namespace: "n", Name: "out", Direction: rule.Egress}
	ingress := rule.PolicyRef{Kind: "NetworkPolicy", Namespace: "n", Name: "in"}
	event := func(what, verdict string, refs ...rule.PolicyRef) api.Flow {
		return api.Flow{
			Event: what, Verdict: verdict, Proto: "TCP", Reason: "ok", DecidedBy: refs,
			Src: api.End{Addr: src.Addr(), Port: src.Port()}, Dst: api.End{Addr: dst.Addr(), Port: dst.Port()},
		}
	}
	audited := event("new", Allow, ingress)
	audited.Audit = true
	reply := event("denied", Deny)
	reply.Reply = true
	spoofed := event("denied", Deny)
	spoofed.Reason = "spoofed source"
	here, there := &netlab.Namespace{}, &netlab.Namespace{}
	for name, c := range map[string]struct {
		passed  bool
		node    bool // the node is the source
		said    []api.Flow
		error   string
		refs    []rule.PolicyRef
		verdict string
		reason  string
		audit   bool
	}{
		"allowed":           {passed: true, said: []api.Flow{event("new", Allow, egress, ingress)}, refs: []rule.PolicyRef{egress, ingress}, verdict: Allow},
		"at two hooks":      {passed: true, said: []api.Flow{event("new", Allow, egress), event("new", Allow, egress, ingress)}, refs: []rule.PolicyRef{egress, ingress}, verdict: Allow},
		"denied":            {said: []api.Flow{event("denied", Deny, ingress), event("denied", Deny, ingress)}, refs: []rule.PolicyRef{ingress}, verdict: Deny},
		"audited":           {passed: true, said: []api.Flow{audited}, refs: []rule.PolicyRef{ingress}, verdict: Allow, audit: true},
		"denied, no policy": {said: []api.Flow{spoofed}, verdict: Deny, reason: "spoofed source"},
		"first denied":      {passed: true, said: []api.Flow{event("denied", Deny, ingress), event("new", Allow, egress)}, refs: []rule.PolicyRef{egress}, verdict: Allow},
		"leaked":            {passed: true, said: []api.Flow{event("denied", Deny)}, verdict: Allow, error: "the dataplane denied the packets, but they arrived"},
		"lost":              {said: []api.Flow{event("new", Allow)}, verdict: Deny, error: "the dataplane allowed the packets, but they did not arrive"},
		"passed by":         {passed: true, verdict: Allow, error: "packets passed, and the dataplane says nothing about them"},
		"swallowed":         {verdict: Deny, error: "packets were lost, and the dataplane says nothing about them"},
		"only of replies":   {passed: true, said: []api.Flow{reply}, verdict: Allow, error: "packets passed, and the dataplane says nothing about them"},
		"own node":          {passed: true, node: true, verdict: Allow},
	} {
		t.Run(name, func(t *testing.T) {
			e := &events{flows: map[tuple]*said{}, news: make(chan struct{}, 1)}
			for i := range c.said {
				if err := e.add(&c.said[i]); err != nil {
					t.Fatal(err)
				}
			}
			a := attempt{
				query: &Query{}, src: side{ns: here, node: c.node}, dst: side{ns: there, pod: &pod{}},
				flow: tuple{src, dst, "TCP"}, result: netlab.Result{Passed: c.passed},
			}
			got := a.answer(e)
			if got.Error != c.error || got.Verdict != c.verdict || got.Reason != c.reason || got.Audit != c.audit || !slices.Equal(got.DecidedBy, c.refs) {
				t.Errorf("got %+v", got)
			}
			if got.DecidedBy == nil {
				t.Error("decidedBy is null")
			}
		})
	}
}
