package matrix

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/tools/verdict"
)

// Change is connections that open, or close, for the same reason: all from
// any of From to any of To. A pod that is in both always reaches itself.
type Change struct {
	Change string   `json:"change"` // Opens or Closes
	From   []string `json:"from"`
	To     []string `json:"to"`
	Ports  Ports    `json:"ports"`
	Before Cause    `json:"before"`
	After  Cause    `json:"after"`
}

// Cause is what decided in one version.
type Cause struct {
	Verdict string `json:"verdict"`
	By      string `json:"by"`
}

// Changes.
const (
	Opens  = "opens"
	Closes = "closes"
)

// Difference is what changes between two versions.
type Difference struct {
	Changes []Change `json:"changes"`
	Added   []string `json:"added,omitempty"`   // pods that only the new version has
	Removed []string `json:"removed,omitempty"` // pods that only the old version has
	Faults  []string `json:"faults,omitempty"`  // pods that could not be asked about
}

// Empty reports whether nothing changes.
func (d *Difference) Empty() bool { return len(d.Changes)+len(d.Added)+len(d.Removed) == 0 }

// version is one side of a Diff.
type version struct {
	asker
	ends map[string]verdict.End
}

// Diff compares all connections between pods that both versions have, and
// between them and addresses outside.
func Diff(before, after *verdict.Cluster) (*Difference, error) {
	oldSet, oldPods := before.Compile()
	newSet, newPods := after.Compile()
	spans := spansOf(oldSet, newSet)
	old := version{asker: asker{before, spans}, ends: map[string]verdict.End{}}
	now := version{asker: asker{after, spans}, ends: map[string]verdict.End{}}
	d := &Difference{Changes: []Change{}}
	oldEnds, faults := usable(before)
	d.Faults = prefix("old: ", faults)
	newEnds, faults := usable(after)
	d.Faults = append(d.Faults, prefix("new: ", faults)...)
	for _, e := range oldEnds {
		old.ends[e.Name] = e
	}
	var common []verdict.End
	for _, e := range newEnds {
		now.ends[e.Name] = e
		if _, ok := old.ends[e.Name]; ok {
			common = append(common, e)
		}
	}
	d.Added, d.Removed = only(newEnds, old.ends), only(oldEnds, now.ends)

	// Pods that neither version can tell from one another change alike. On
	// which node they are matters to host-network pods only.
	hosts := slices.ContainsFunc(common, func(e verdict.End) bool { return !e.Judged() || !old.ends[e.Name].Judged() })
	key := func(e verdict.End) string {
		o := old.ends[e.Name].Pod
		nodes := ""
		if hosts {
			nodes = o.NodeName + "\x00" + e.Pod.NodeName
		}
		return fmt.Sprint(nodes, "\x00", o.HostNetwork, e.Pod.HostNetwork) +
			treatment(oldSet, oldPods, o) + "\x00" + treatment(newSet, newPods, e.Pod)
	}
	groups := group(common, key, false)
	groups = append(groups, outside(common, append(own(before), own(after)...), oldSet, newSet)...)
	c := &collector{changes: map[string]*Change{}}
	for _, src := range groups {
		for _, dst := range groups {
			if src.Region && dst.Region {
				continue
			}
			if err := c.compare(&old, &now, src, dst); err != nil {
				return nil, err
			}
		}
	}
	d.Changes = append(d.Changes, c.merged()...)
	return d, nil
}

func prefix(with string, list []string) (out []string) {
	for _, s := range list {
		out = append(out, with+s)
	}
	return out
}

func only(ends []verdict.End, other map[string]verdict.End) (out []string) {
	for _, e := range ends {
		if _, ok := other[e.Name]; !ok {
			out = append(out, e.Name)
		}
	}
	return out
}

// end returns what a name means in a version; regions are the same in both.
func (v *version) end(e verdict.End) verdict.End {
	if e.Pod == nil {
		return e
	}
	return v.ends[e.Name]
}

// collector gathers changes, by what is the same about them.
type collector struct {
	changes map[string]*Change
	order   []string
}

func (c *collector) compare(old, now *version, src, dst *Group) error {
	x, y := src.ends[0], dst.ends[0]
	if src == dst {
		if len(src.ends) == 1 {
			return nil // a pod always reaches itself
		}
		y = dst.ends[1]
	}
	oldX, oldY, newX, newY := old.end(x), old.end(y), now.end(x), now.end(y)
	oldPairs, err1 := verdict.Pairs(oldX, oldY)
	newPairs, err2 := verdict.Pairs(newX, newY)
	if err1 != nil || err2 != nil {
		return nil // no family in common
	}
	type result struct {
		family   string
		old, now answer
	}
	var results []result
	for _, p := range oldPairs {
		i := slices.IndexFunc(newPairs, func(q verdict.Pair) bool { return q.Src.Is4() == p.Src.Is4() })
		if i < 0 {
			continue
		}
		a, err := old.ask(oldX, oldY, p)
		if err != nil {
			return err
		}
		b, err := now.ask(newX, newY, newPairs[i])
		if err != nil {
			return err
		}
		family := " (IPv4)"
		if p.Src.Is6() {
			family = " (IPv6)"
		}
		results = append(results, result{family, a, b})
	}
	both := len(results) > 1 && alike(results[0].old, results[1].old) && alike(results[0].now, results[1].now)
	for i, r := range results {
		if both && i > 0 {
			break
		}
		if both || len(results) == 1 {
			r.family = ""
		}
		c.add(src, dst, r.family, old.spans, r.old, r.now)
	}
	return nil
}

func alike(a, b answer) bool { return slices.EqualFunc(a, b, same) }

// add gathers what changes at the ports of one pair, by cause.
func (c *collector) add(src, dst *Group, family string, spans []span, old, now answer) {
	type causes struct{ before, after Cause }
	found := map[causes][]int{}
	var order []causes
	for i := range old {
		if old[i] == nil || old[i].Allowed == now[i].Allowed {
			continue
		}
		k := causes{Cause{word(old[i].Allowed), old[i].Text()}, Cause{word(now[i].Allowed), now[i].Text()}}
		if found[k] == nil {
			order = append(order, k)
		}
		found[k] = append(found[k], i)
	}
	for _, k := range order {
		ch := Change{Change: Closes, From: src.names(family), To: dst.names(family), Before: k.before, After: k.after,
			Ports: collect(spans, old, func(i int) bool { return slices.Contains(found[k], i) })}
		if k.after.Verdict == verdict.Allow {
			ch.Change = Opens
		}
		c.join(ch, fmt.Sprint("to", ch.To), func(x *Change) { x.From = append(x.From, ch.From...) })
	}
}

// join puts a change beside those that are the same but for one end.
func (c *collector) join(ch Change, end string, add func(*Change)) {
	key := fmt.Sprint(ch.Change, ch.Ports, ch.Before, ch.After, end)
	if x := c.changes[key]; x != nil {
		add(x)
		return
	}
	c.changes[key] = &ch
	c.order = append(c.order, key)
}

// merged joins changes that have their sources in common as well.
func (c *collector) merged() []Change {
	second := &collector{changes: map[string]*Change{}}
	for _, key := range c.order {
		ch := *c.changes[key]
		second.join(ch, fmt.Sprint("from", ch.From), func(x *Change) { x.To = append(x.To, ch.To...) })
	}
	out := make([]Change, 0, len(second.order))
	for _, key := range second.order {
		out = append(out, *second.changes[key])
	}
	slices.SortStableFunc(out, func(a, b Change) int { return strings.Compare(b.Change, a.Change) }) // opens first
	return out
}

func (g *Group) names(family string) []string {
	if g.Region {
		return []string{g.Name}
	}
	out := slices.Clone(g.Members)
	for i := range out {
		out[i] += family
	}
	return out
}
