package ruletest_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

type verdict struct {
	action     rule.Action
	audit, log bool
	cause      rule.CauseID
}

func evaluate(set *rule.Set, p ruletest.Probe) verdict {
	var v verdict
	v.action, v.audit, v.log, v.cause = ruletest.Evaluate(set, p.Endpoint, p.Direction, p.Remote, p.Proto, p.Port)
	return v
}

// TestEvaluateTiers fixes how tiers, defaults, audit and log combine.
func TestEvaluateTiers(t *testing.T) {
	all := rule.Rule{AnyPeer: true, AnyPort: true}
	with := func(action rule.Action, cause rule.CauseID, log, audit bool) rule.Rule {
		r := all
		r.Action, r.Cause, r.Log, r.Audit = action, cause, log, audit
		return r
	}
	rules := func(r ...rule.Rule) rule.Tier { return rule.Tier{Rules: r, Default: rule.Deny, DefaultCause: 9} }
	for name, c := range map[string]struct {
		tiers []rule.Tier
		want  verdict
	}{
		"no tier":             {nil, verdict{action: rule.Allow}},
		"default deny":        {[]rule.Tier{rules()}, verdict{action: rule.Deny, cause: 9}},
		"first match":         {[]rule.Tier{rules(with(rule.Allow, 1, false, false), with(rule.Deny, 2, true, false))}, verdict{action: rule.Allow, cause: 1}},
		"pass skips the tier": {[]rule.Tier{rules(with(rule.Pass, 1, false, false), with(rule.Allow, 2, false, false)), rules()}, verdict{action: rule.Deny, cause: 9}},
		"pass from the last":  {[]rule.Tier{rules(with(rule.Pass, 1, false, false))}, verdict{action: rule.Allow}},
		"log of a pass stays": {[]rule.Tier{rules(with(rule.Pass, 1, true, false)), rules()}, verdict{action: rule.Deny, log: true, cause: 9}},
		"audited deny":        {[]rule.Tier{rules(with(rule.Deny, 1, false, true)), rules()}, verdict{action: rule.Allow, audit: true, cause: 1}},
		"audited allow":       {[]rule.Tier{rules(with(rule.Allow, 1, false, true))}, verdict{action: rule.Allow, cause: 1}},
		"audited default":     {[]rule.Tier{{Default: rule.Deny, DefaultAudit: true, DefaultCause: 3}}, verdict{action: rule.Allow, audit: true, cause: 3}},
		"default pass":        {[]rule.Tier{{Default: rule.Pass, DefaultAudit: true, DefaultCause: 3}, rules()}, verdict{action: rule.Deny, cause: 9}},
		"default allow":       {[]rule.Tier{{Default: rule.Allow, DefaultAudit: true, DefaultCause: 3}, rules()}, verdict{action: rule.Allow, cause: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			set := &rule.Set{Programs: []rule.Program{{Tiers: c.tiers}}, Endpoints: []rule.Endpoint{{ID: 4}}}
			got := evaluate(set, ruletest.Probe{Endpoint: 4, Remote: netip.MustParseAddr("10.0.0.1")})
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if got := evaluate(set, ruletest.Probe{Endpoint: 3}); got != (verdict{action: rule.Deny}) {
				t.Errorf("unknown endpoint: got %+v", got)
			}
		})
	}
}

// TestInPeer fixes what identities, blocks, exceptions and Unbound match.
func TestInPeer(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	set := &rule.Set{
		Peers:      4,
		Identities: []rule.Identity{{0}, {}},
		Addresses:  []rule.Address{{Addr: addr("10.0.0.1"), Identity: 0}, {Addr: addr("10.0.0.2"), Identity: 1}},
		Blocks: []rule.Block{
			{Peer: 1, Prefix: prefix("10.0.0.0/24"), Except: []netip.Prefix{prefix("10.0.0.2/31")}},
			{Peer: 1, Prefix: prefix("10.0.0.3/32")},
			{Peer: 2, Prefix: prefix("0.0.0.0/0"), Unbound: true},
			{Peer: 3, Prefix: prefix("::/0")},
		},
	}
	for remote, want := range map[string][4]bool{
		"10.0.0.1": {true, true, false, false},
		"10.0.0.2": {false, false, false, false},
		"10.0.0.3": {false, true, true, false},
		"10.0.1.0": {false, false, true, false},
		"::1":      {false, false, false, true},
	} {
		for peer, want := range want {
			if got := ruletest.InPeer(set, rule.PeerID(peer), addr(remote)); got != want {
				t.Errorf("%s in peer %d: got %v", remote, peer, got)
			}
		}
	}
}

// TestRandomIsDeterministicAndVaried guards the generator: equal seeds give
// equal sets, and the probes reach every outcome that a verdict can have.
func TestRandomIsDeterministicAndVaried(t *testing.T) {
	seen := map[verdict]int{}
	for seed := range uint64(200) {
		set := ruletest.Random(rand.New(rand.NewPCG(seed, 1)), ruletest.Small())
		if again := ruletest.Random(rand.New(rand.NewPCG(seed, 1)), ruletest.Small()); !reflect.DeepEqual(set, again) {
			t.Fatalf("seed %d: two different sets", seed)
		}
		rng := rand.New(rand.NewPCG(seed, 2))
		for range 50 {
			v := evaluate(set, ruletest.RandomProbe(rng, set))
			v.cause = min(v.cause, 1)
			seen[v]++
		}
	}
	for _, want := range []verdict{
		{action: rule.Allow}, {action: rule.Allow, cause: 1}, {action: rule.Allow, log: true, cause: 1},
		{action: rule.Allow, audit: true, cause: 1}, {action: rule.Allow, audit: true, log: true, cause: 1},
		{action: rule.Deny}, {action: rule.Deny, cause: 1}, {action: rule.Deny, log: true, cause: 1},
	} {
		if seen[want] < 20 {
			t.Errorf("only %d probes gave %+v", seen[want], want)
		}
	}
}
