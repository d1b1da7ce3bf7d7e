// Package matrix says who may reach whom, for all pairs of pods, and what
// changes from one version of the manifests to another.
//
// Pods that no rule can tell apart, and that look like one workload, are one
// group; addresses outside are cut into the regions that rules can tell apart.
// One member is judged for all of a group, at one port for each range of ports
// that no rule divides, so the answers are exact and cost a lookup each.
package matrix

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// Group is pods, or a region of addresses, that policies treat alike.
type Group struct {
	Name    string        `json:"name"`
	Members []string      `json:"members,omitempty"` // NAMESPACE/POD; none of a region
	Region  bool          `json:"region,omitempty"`  // addresses outside
	ends    []verdict.End // of members; of a region one
}

// host reports whether the group is pods of the host network, which policies
// of pods on the same node treat unlike others.
func (g *Group) host() bool { return !g.Region && !g.ends[0].Judged() }

// volatile labels differ between the pods of one workload.
var volatile = []string{"pod-template-hash", "controller-revision-hash", "pod-template-generation",
	"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index"}

// groupKey is equal for pods that look like one workload.
func groupKey(p *store.Pod) string {
	labels := maps.Clone(p.Labels)
	for _, k := range volatile {
		delete(labels, k)
	}
	return fmt.Sprint(p.Namespace, "\x00", labels, p.HostNetwork, p.ServiceAccount, p.Ports)
}

// treatment is equal for pods that a Set treats alike: the same programs, and
// the same peers for their addresses.
func treatment(set *rule.Set, pods []*store.Pod, p *store.Pod) string {
	var b strings.Builder
	if i := slices.Index(pods, p); i >= 0 {
		fmt.Fprint(&b, set.Endpoints[i].Ingress, set.Endpoints[i].Egress)
	}
	for _, a := range p.Addrs() {
		fmt.Fprint(&b, a.Is4(), verdict.PeersOf(set, a))
	}
	return b.String()
}

// usable lists the pods that can be asked about, and why others can't.
func usable(c *verdict.Cluster) (ends []verdict.End, faults []string) {
	var pods []*store.Pod
	c.Read(func(v store.View) { pods = slices.Collect(v.Pods()) })
	verdict.SortPods(pods)
	for _, p := range pods {
		e, err := c.EndOf(p.Key())
		if err != nil {
			faults = append(faults, err.Error())
			continue
		}
		ends = append(ends, e)
	}
	return ends, faults
}

// group puts ends together by key; single keeps each by itself.
func group(ends []verdict.End, key func(verdict.End) string, single bool) []*Group {
	index := map[string]*Group{}
	var out []*Group
	for _, e := range ends {
		k := e.Name
		if !single {
			k = key(e)
		}
		g := index[k]
		if g == nil {
			g = &Group{Name: e.Name}
			index[k] = g
			out = append(out, g)
		}
		g.ends = append(g.ends, e)
		g.Members = append(g.Members, e.Name)
	}
	for _, g := range out {
		if len(g.Members) > 1 {
			g.Name = fmt.Sprintf("%s (%d)", commonName(g), len(g.Members))
		}
	}
	return out
}

// nameLabels say what a workload is called, the best first.
var nameLabels = []string{"app.kubernetes.io/name", "app", "k8s-app", "component"}

func commonName(g *Group) string {
	p := g.ends[0].Pod
	for _, k := range nameLabels {
		if v := p.Labels[k]; v != "" {
			return p.Namespace + "/" + v
		}
	}
	prefix := g.Members[0]
	for _, m := range g.Members {
		for !strings.HasPrefix(m, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	if len(prefix) <= len(p.Namespace)+1 {
		return p.Namespace + "/*"
	}
	return prefix + "*"
}

// own lists all addresses that somebody in the cluster has.
func own(c *verdict.Cluster) []netip.Addr {
	var out []netip.Addr
	c.Read(func(v store.View) {
		for p := range v.Pods() {
			out = append(out, p.Addrs()...)
		}
		for n := range v.Nodes() {
			out = append(out, n.Addrs...)
		}
	})
	return out
}

// outside lists regions as groups, of the families that the ends have.
func outside(ends []verdict.End, own []netip.Addr, sets ...*rule.Set) []*Group {
	var out []*Group
	for _, six := range []bool{false, true} {
		has := func(e verdict.End) bool {
			return slices.ContainsFunc(e.Addrs, func(a netip.Addr) bool { return a.Is6() == six })
		}
		if !slices.ContainsFunc(ends, has) {
			continue
		}
		for _, r := range verdict.Regions(own, six, sets...) {
			out = append(out, &Group{Name: r.Name, Region: true,
				ends: []verdict.End{{Name: r.Name, Addrs: []netip.Addr{r.Addr}}}})
		}
	}
	return out
}
