package metrics

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

var policyDesc = desc("policy_verdicts_total",
	"Verdicts that a policy gave: flows that it allowed or would have denied (audited), packets that it denied. What several policies deny together, by isolating a pod, counts for each. Policies beyond the configured number share one series of kind \"\" and name \"other\".",
	"kind", "namespace", "policy", "direction", "verdict")

// PolicyKey names a policy.
type PolicyKey struct{ Kind, Namespace, Name string }

// builtin is the kind of what gives verdicts and is no policy.
const builtin = "builtin"

// other is who stands for policies that have no series of their own.
var other = PolicyKey{Name: "other"}

type tally struct{ allowed, denied, audited uint64 }

// policyCollector counts verdicts by policy. It adds up what is new since it
// looked last, so that a counter never goes back when a policy gets a series of
// its own, and a number that a new cause has inherited brings nothing along.
type policyCollector struct {
	limit int
	plane Plane
	agent Agent

	mu   sync.Mutex // guards what follows
	last map[rule.CauseID]stat.Hit
	sums map[PolicyKey]*[2]tally // by direction
	own  int                     // policies in sums
}

func newPolicyCollector(limit int, p Plane, a Agent) *policyCollector {
	return &policyCollector{limit: limit, plane: p, agent: a,
		last: map[rule.CauseID]stat.Hit{}, sums: map[PolicyKey]*[2]tally{}}
}

// Describe implements prometheus.Collector.
func (c *policyCollector) Describe(out chan<- *prometheus.Desc) { out <- policyDesc }

// Collect implements prometheus.Collector.
func (c *policyCollector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	c.update()
	for key, dirs := range c.sums {
		for d, t := range dirs {
			direction := rule.Direction(d).String()
			for _, v := range []struct {
				verdict string
				n       uint64
			}{{"allowed", t.allowed}, {"denied", t.denied}, {"audited", t.audited}} {
				if v.n > 0 {
					out <- counter(policyDesc, v.n, key.Kind, key.Namespace, key.Name, direction, v.verdict)
				}
			}
		}
	}
}

// forget drops the series of policies that have gone: others may have their
// place.
func (c *policyCollector) forget() {
	var keys []PolicyKey
	for key := range c.sums {
		if key.Kind != builtin && key != other {
			keys = append(keys, key)
		}
	}
	kept := map[PolicyKey]bool{}
	for _, key := range c.agent.InForce(keys) {
		kept[key] = true
	}
	for _, key := range keys {
		if !kept[key] {
			delete(c.sums, key)
		}
	}
	c.own = len(kept)
}

// fresh is what a cause did since the last look.
type fresh struct {
	key PolicyKey
	dir rule.Direction
	tally
}

// update adds what is new. Who did most gets a series first.
func (c *policyCollector) update() {
	var news []fresh
	c.plane.Hits(func(id rule.CauseID, h stat.Hit) {
		was := c.last[id]
		c.last[id] = h
		t := tally{h.Allowed - was.Allowed, h.Denied - was.Denied, h.Audited - was.Audited}
		if t == (tally{}) {
			return
		}
		cause := c.agent.Cause(id)
		switch {
		case len(cause.Refs) > 0:
		case cause.Text == "":
			news = append(news, fresh{other, rule.Ingress, t}) // of rules that are no more
		default:
			news = append(news, fresh{PolicyKey{Kind: builtin, Name: cause.Text}, rule.Ingress, t})
		}
		var seen []PolicyKey
		for _, r := range cause.Refs {
			key := PolicyKey{r.Kind, r.Namespace, r.Name}
			if !slices.Contains(seen, key) {
				seen = append(seen, key)
				news = append(news, fresh{key, r.Direction, t})
			}
		}
	})
	slices.SortFunc(news, func(a, b fresh) int {
		return cmp.Or(cmp.Compare(b.total(), a.total()), cmp.Compare(a.key.Namespace, b.key.Namespace), cmp.Compare(a.key.Name, b.key.Name))
	})
	for i := range news {
		c.sum(news[i].key)[news[i].dir].add(news[i].tally)
	}
}

// sum returns where a policy's verdicts are counted.
func (c *policyCollector) sum(key PolicyKey) *[2]tally {
	t := c.sums[key]
	if t == nil && key.Kind != builtin && key != other {
		if c.own < c.limit {
			c.own++
		} else {
			key = other
			t = c.sums[key]
		}
	}
	if t == nil {
		t = new([2]tally)
		c.sums[key] = t
	}
	return t
}

func (t *tally) add(o tally) {
	t.allowed, t.denied, t.audited = t.allowed+o.allowed, t.denied+o.denied, t.audited+o.audited
}

func (t *tally) total() uint64 { return t.allowed + t.denied + t.audited }
