// Package compile turns the policies that concern a node's pods into a
// rule.Set. It is pure and deterministic: a new Compiler gives equal Sets for
// equal input, and what it remembers between Sets is only which numbers it
// gave out (causes, generations) and which identities selectors matched.
//
// A compile walks the policies of the namespaces of local pods and the
// addresses of the pods that these policies name; what concerns neither costs
// nothing. A Compiler belongs to one goroutine.
package compile

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// UnknownPod is the cause of all denials of an endpoint whose pod the store
// doesn't have.
const UnknownPod = "pod not known yet"

// Input is all that a Set depends on.
type Input struct {
	View      store.View
	Endpoints []endpoint.Endpoint
	Node      string                  // this node's name
	NodeAddrs []netip.Addr            // its own addresses, beside what the store has
	Domains   map[string][]netip.Addr // what the domain names in policies resolve to
}

// Config says where counting starts. A restarted agent that keeps the flows of
// its predecessor continues the predecessor's numbers.
type Config struct {
	Generation         uint64 // of the Set before the first
	EndpointGeneration uint32 // last given to an endpoint
}

// Compiler makes Sets from the views of one store.
type Compiler struct {
	cfg       Config
	seed      maphash.Seed
	index     *resolve.Index
	causes    *causes
	endpoints map[endpoint.ID]known
}

// known is what an endpoint's generation stands for.
type known struct {
	namespace, name, uid string
	verdicts             uint64 // hash of all that its verdicts depend on
	generation           uint32
}

// New returns a Compiler that has made no Set yet.
func New(cfg Config) *Compiler {
	return &Compiler{cfg: cfg, seed: maphash.MakeSeed(), index: resolve.NewIndex(),
		causes: newCauses(), endpoints: map[endpoint.ID]known{}}
}

// Compile returns the Set for in. The Set shares nothing that later compiles
// or the store change.
func (c *Compiler) Compile(in Input) *rule.Set {
	c.index.Begin()
	c.causes.begin()
	c.cfg.Generation++
	b := &builder{
		c: c, in: in, set: &rule.Set{Generation: c.cfg.Generation},
		peers:    resolve.NewPeers(in.View, c.index, in.Domains, resolve.Site{Node: in.Node, Addrs: in.NodeAddrs}, c.seed),
		programs: map[string]rule.ProgramID{},
		byID:     map[*store.Identity]verdicts{},
		rules:    map[ruleKey][]rule.Rule{},
	}
	own := slices.Concat(in.NodeAddrs, in.View.NodeAddrs(in.Node))
	if len(own) > 0 {
		b.ownNode = []rule.PeerID{b.peers.Addrs(own)}
	}
	endpoints := slices.SortedFunc(slices.Values(in.Endpoints), func(a, b endpoint.Endpoint) int {
		return cmp.Compare(a.ID, b.ID)
	})
	next := make(map[endpoint.ID]known, len(endpoints))
	for i := range endpoints {
		e := &endpoints[i]
		v := b.verdictsOf(e)
		k := known{e.Namespace, e.Name, e.UID, v.hash, 0}
		k.generation = c.generation(e.ID, k)
		next[e.ID] = k
		b.set.Endpoints = append(b.set.Endpoints, rule.Endpoint{ID: e.ID,
			Ingress: v.programs[rule.Ingress], Egress: v.programs[rule.Egress], Generation: k.generation})
	}
	c.endpoints = next
	b.peers.Emit(b.set)
	b.set.Causes = c.causes.end()
	return b.set
}

// generation keeps an endpoint's number as long as k says the same as before.
func (c *Compiler) generation(id endpoint.ID, k known) uint32 {
	if old, ok := c.endpoints[id]; ok {
		k.generation = old.generation
		if k == old {
			return old.generation
		}
	}
	c.cfg.EndpointGeneration++
	if c.cfg.EndpointGeneration == 0 {
		c.cfg.EndpointGeneration = 1
	}
	return c.cfg.EndpointGeneration
}

// builder is the state of one compile.
type builder struct {
	c        *Compiler
	in       Input
	set      *rule.Set
	peers    *resolve.Peers
	ownNode  []rule.PeerID
	programs map[string]rule.ProgramID
	byID     map[*store.Identity]verdicts
	rules    map[ruleKey][]rule.Rule
}

// verdicts are the programs of all endpoints of one identity, by direction.
type verdicts struct {
	programs [2]rule.ProgramID
	hash     uint64
}

type ruleKey struct {
	policy *policy.Policy
	rule   *policy.Rule
}

func (b *builder) verdictsOf(e *endpoint.Endpoint) verdicts {
	key := store.Key{Namespace: e.Namespace, Name: e.Name}
	pod, id := b.in.View.Pod(key), b.in.View.PodIdentity(key)
	if id == nil || e.UID != "" && pod.UID != "" && e.UID != pod.UID {
		id = nil
	}
	v, ok := b.byID[id]
	if ok {
		return v
	}
	if id == nil {
		closed := []rule.Tier{{Name: "unknown", Default: rule.Deny, DefaultCause: b.c.causes.text(UnknownPod)}}
		v.programs = [2]rule.ProgramID{b.program(closed), b.program(closed)}
		v.hash = b.hash(closed, closed)
	} else {
		policies := resolve.Selecting(b.in.View, id)
		before, after := resolve.BeforeOwnNode(policies)
		in, rest := b.tiers(before, id, rule.Ingress), b.tiers(after, id, rule.Ingress)
		out := b.tiers(policies, id, rule.Egress)
		if b.ownNode != nil {
			in = append(in, rule.Tier{Name: resolve.OwnNode, Rules: []rule.Rule{{
				Action: rule.Allow, Peers: b.ownNode, AnyPort: true, Cause: b.c.causes.text(resolve.OwnNode)}}})
		}
		in = append(in, rest...)
		v.programs = [2]rule.ProgramID{rule.Ingress: b.program(in), rule.Egress: b.program(out)}
		v.hash = b.hash(in, out)
	}
	b.byID[id] = v
	return v
}

// tiers compiles one direction of the policies that select id, which come in
// the order of judgement. Tiers that would say nothing are left out.
func (b *builder) tiers(policies []*policy.Policy, id *store.Identity, dir rule.Direction) []rule.Tier {
	var out []rule.Tier
	for len(policies) > 0 {
		n := 1
		for n < len(policies) && policies[n].Tier == policies[0].Tier {
			n++
		}
		if t := b.tier(policies[:n], id, dir); len(t.Rules) > 0 || t.Default != rule.Pass {
			out = append(out, t)
		}
		policies = policies[n:]
	}
	return out
}

func (b *builder) tier(policies []*policy.Policy, id *store.Identity, dir rule.Direction) rule.Tier {
	t := rule.Tier{Name: policies[0].Tier.Name}
	var isolating []rule.PolicyRef
	audit := true
	for _, p := range policies {
		section := resolve.Section(p, dir)
		if !section.Applies {
			continue
		}
		for i := range section.Rules {
			t.Rules = append(t.Rules, b.rule(p, &section.Rules[i], dir, id)...)
		}
		if section.Default == policy.Deny {
			isolating = append(isolating, resolve.Ref(p, rule.DefaultRule, dir))
			audit = audit && b.in.View.Audit(p)
		}
	}
	if len(isolating) > 0 {
		t.Default, t.DefaultAudit = rule.Deny, audit
		t.DefaultCause = b.c.causes.defaults(isolating)
	}
	return t
}

// rule compiles one rule; lines that are the same for all subjects are made
// once a Set.
func (b *builder) rule(p *policy.Policy, r *policy.Rule, dir rule.Direction, id *store.Identity) []rule.Rule {
	key := ruleKey{p, r}
	if lines, ok := b.rules[key]; ok {
		return lines
	}
	lines, shared := b.peers.Rules(r, dir, id)
	for i := range lines {
		lines[i].Cause = b.c.causes.rule(resolve.RefOf(p, r, dir))
		lines[i].Audit = r.Action == policy.Deny && b.in.View.Audit(p)
	}
	if shared {
		b.rules[key] = lines
	}
	return lines
}
