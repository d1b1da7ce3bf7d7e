package control

import (
	"context"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/api"
	learn "github.com/sluice-net/sluice/control/names"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// namesFile is where learned names are kept, beside the socket.
func namesFile(cfg Config) string { return cfg.Socket + ".names" }

// lookups is the loop's part in learning names: who learns which, and what has
// been taken over for the next publish.
type lookups struct {
	learner *learn.Learner
	domains map[string][]netip.Addr
	heard   []string // names in domains that the compiler doesn't know of yet
	turn    uint64   // of the latest Take
	taken   bool     // turn is to be told as published

	seen   uint64                      // generation of the store that naming is of
	synced bool                        // naming is complete
	naming map[policy.Origin]struct{}  // policies that name domains
	domain map[string]policy.Name      // by the text of a peer
	before map[string]policy.Name      // the same of the look before the latest
	pupils map[endpoint.ID]learn.Pupil // as last told
}

func (a *Agent) newLookups() {
	a.lookups = lookups{learner: learn.New(a.cfg.names(), a.plane.Release), domains: map[string][]netip.Addr{},
		naming: map[policy.Origin]struct{}{}, domain: map[string]policy.Name{}}
	if note := a.lookups.learner.Note(); note != "" {
		a.log.Warn("read learned names", "err", note)
	}
}

// Names says how names are learned from DNS.
type Names struct {
	MinTTL    Duration `json:"minTTL"`    // what an answer says holds for so long at least
	Addresses int      `json:"addresses"` // most that one pod can teach
	MaxHold   Duration `json:"maxHold"`   // an answer waits so long at most for the rules to know it
}

func defaultNames() Names {
	d := learn.Default()
	return Names{MinTTL: Duration(d.MinTTL), Addresses: d.Addresses, MaxHold: Duration(dataplane.Default().AnswerHold)}
}

func (c Config) names() learn.Config {
	n := learn.Default()
	n.MinTTL, n.Addresses, n.File = time.Duration(c.Names.MinTTL), c.Names.Addresses, namesFile(c)
	return n
}

// listen learns names until ctx ends.
func (a *Agent) listen(ctx context.Context) error { return a.lookups.learner.Run(ctx, a.plane) }

// takeNames brings what names resolve to up to date.
func (a *Agent) takeNames() {
	l := &a.lookups
	heard, turn := l.learner.Take(l.domains)
	l.heard = append(l.heard, heard...)
	l.turn, l.taken = turn, true
}

// namesPublished lets the answers go on that rules in force know of.
func (a *Agent) namesPublished() {
	if l := &a.lookups; l.taken {
		l.learner.Published(l.turn)
		l.taken = false
	}
}

// teach says which pods learn names, if that may have changed.
func (a *Agent) teach(v store.View, endpointsChanged bool) error {
	l := &a.lookups
	changes, ok := v.Since(l.seen)
	moved := endpointsChanged || !ok || !l.synced
	if !ok || !l.synced {
		clear(l.naming)
		for p := range v.AllPolicies() {
			l.note(p)
		}
		l.synced = true
	}
	if ok {
		for i := range changes {
			switch c := &changes[i]; {
			case c.Policy != policy.Origin{}:
				_, was := l.naming[c.Policy]
				delete(l.naming, c.Policy)
				for p := range v.PoliciesOf(c.Policy) {
					l.note(p)
				}
				_, is := l.naming[c.Policy]
				moved = moved || was || is
			case c.Pod != store.Key{} && len(l.naming) > 0:
				_, local := a.attached[c.Pod]
				moved = moved || local
			}
		}
	}
	l.seen = v.Generation()
	if !moved || len(l.naming) == 0 && len(l.pupils) == 0 {
		return nil
	}
	l.begin()
	pupils := map[endpoint.ID]learn.Pupil{}
	pods := map[learn.Pod]struct{}{}
	for key, ep := range a.attached {
		pod := learn.Pod{Namespace: ep.Namespace, Name: ep.Name, UID: ep.UID}
		pods[pod] = struct{}{}
		if id := v.PodIdentity(key); id != nil {
			p := learn.Pupil{Pod: pod}
			var lookups []policy.Lookup
			p.Names, lookups = l.learns(v, id)
			if len(lookups) > 0 {
				p.From = newResolvers(a.store, a.cfg.NodeName, l.learner, lookups).teach
			}
			if len(p.Names)+len(lookups) > 0 {
				pupils[ep.ID] = p
			}
		}
	}
	l.pupils = pupils
	l.learner.SetPupils(pupils, func(p learn.Pod) bool { _, there := pods[p]; return there })
	return a.plane.SetLearners(func(id endpoint.ID) bool { _, learns := pupils[id]; return learns })
}

// note remembers a policy that names domains.
func (l *lookups) note(p *policy.Policy) {
	names := len(p.Lookups) > 0
	for i := range p.Egress.Rules {
		for j := range p.Egress.Rules[i].Peers {
			names = names || p.Egress.Rules[i].Peers[j].Domain != ""
		}
	}
	if names {
		l.naming[p.Origin] = struct{}{}
	}
}

// learns returns what an identity may learn: the names that rules name as domains,
// and its lookups.
func (l *lookups) learns(v store.View, id *store.Identity) (names []policy.Name, lookups []policy.Lookup) {
	for o := range l.naming {
		if o.Namespace != "" && o.Namespace != id.Entity.Namespace {
			continue
		}
		for p := range v.PoliciesOf(o) {
			if !p.Selects(&id.Entity) {
				continue
			}
			lookups = append(lookups, p.Lookups...)
			for i := range p.Egress.Rules {
				for j := range p.Egress.Rules[i].Peers {
					if d := p.Egress.Rules[i].Peers[j].Domain; d != "" {
						names = append(names, l.domainName(d))
					}
				}
			}
		}
	}
	return names, lookups
}

// begin starts to look for the names that pods may learn. Those that the last
// look didn't need are forgotten.
func (l *lookups) begin() {
	l.before, l.domain = l.domain, map[string]policy.Name{}
}

// domainName returns the names that a peer's domain stands for: "*.a.b" is
// every name below a.b.
func (l *lookups) domainName(domain string) policy.Name {
	n, ok := l.domain[domain]
	if ok {
		return n
	}
	if n, ok = l.before[domain]; !ok {
		text := strings.ToLower(strings.TrimSuffix(domain, "."))
		expr := regexp.QuoteMeta(text)
		if below, any := strings.CutPrefix(text, "*"); any {
			expr = ".+" + regexp.QuoteMeta(below)
		}
		n = policy.NewName(domain, "^"+expr+"[.]$")
	}
	l.domain[domain] = n
	return n
}

// Names implements api.Names.
func (a *Agent) Names() []api.Name {
	out := []api.Name{}
	for _, e := range a.lookups.learner.Entries() {
		out = append(out, api.Name{Name: e.Name, Address: e.Addr, Namespace: e.Pod.Namespace, Pod: e.Pod.Name,
			Resolver: e.Resolver, Learned: e.Learned, Until: e.Until, InUse: e.InUse})
	}
	return out
}
