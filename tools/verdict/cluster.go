// Package verdict answers, for a folder of manifests, who may talk to whom and
// why. It is what sluice verdict and sluice policy are made of.
//
// An answer comes from the structure that answers packets: the policies are
// compiled for the node of each pod that is asked about, with all of the
// node's pods as its endpoints, built into a classify.Table and looked up
// there, egress of the source first, then ingress of the destination. A node
// is compiled when it is first asked about; a lookup then costs less than a
// microsecond. Walk adds the reasons, from the policies themselves.
//
// Nothing invalid opens anything: a policy that is not valid isolates what it
// selects, and Check refuses a folder of which something could not be read.
// A Cluster belongs to one goroutine.
package verdict

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Cluster is what a folder of manifests says, ready to be asked.
type Cluster struct {
	State manifest.State // what loading found

	store   *store.Store
	domains map[string][]netip.Addr
	nodes   map[string]*node
}

// node is the compiled policy of one node, and its pods as endpoints.
type node struct {
	table *classify.Table
	ids   map[store.Key]endpoint.ID
}

// Load reads a file or folder of manifests. domains says what the domain names
// in policies resolve to.
func Load(path string, domains map[string][]netip.Addr) (*Cluster, error) {
	st := store.New()
	src, err := manifest.Open(path, st)
	if err != nil {
		return nil, err
	}
	c := New(st, domains)
	c.State = src.State()
	return c, nil
}

// New returns a Cluster of what a store has, which must not change any more.
func New(st *store.Store, domains map[string][]netip.Addr) *Cluster {
	return &Cluster{store: st, domains: domains, nodes: map[string]*node{}}
}

// Check returns an error for each document or object that could not be read
// at all. Answers without it would be about another cluster. A policy that is
// not valid is no such error: it is there, and closed.
func (c *Cluster) Check() error {
	closed := map[string]bool{}
	c.Read(func(v store.View) {
		for p := range v.AllPolicies() {
			closed[p.Origin.String()] = closed[p.Origin.String()] || p.Rejected
		}
	})
	var errs []error
	for _, r := range c.State.Rejections {
		if r.Field == "" && !closed[r.Object] {
			errs = append(errs, errors.New(Fault(r)))
		}
	}
	return errors.Join(errs...)
}

// Fault spells a rejection out, without its effect.
func Fault(r policy.Rejection) string {
	parts := slices.DeleteFunc([]string{r.Source, r.Object, r.Field, r.Reason}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// Read calls f with what is known of the cluster.
func (c *Cluster) Read(f func(store.View)) { c.store.Read(f) }

// Compile returns the Set of all pods together, as if each were alone on a
// node that nobody knows: without the allowance for a pod's own node. The
// endpoint i+1 is pods[i].
func (c *Cluster) Compile() (set *rule.Set, pods []*store.Pod) {
	c.Read(func(v store.View) {
		pods = podsWhere(v, func(*store.Pod) bool { return true })
		set = compile.New(compile.Config{}).Compile(compile.Input{View: v, Endpoints: endpoints(pods), Domains: c.domains})
	})
	return set, pods
}

// node returns the compiled policy of a node.
func (c *Cluster) node(name string) (*node, error) {
	if n := c.nodes[name]; n != nil {
		return n, nil
	}
	n := &node{ids: map[store.Key]endpoint.ID{}}
	var set *rule.Set
	c.Read(func(v store.View) {
		list := endpoints(podsWhere(v, func(p *store.Pod) bool { return p.NodeName == name }))
		for _, e := range list {
			n.ids[store.Key{Namespace: e.Namespace, Name: e.Name}] = e.ID
		}
		set = compile.New(compile.Config{}).Compile(compile.Input{View: v, Node: name, NodeAddrs: nodeAddrs(v, name),
			Endpoints: list, Domains: c.domains})
	})
	var err error
	if n.table, err = classify.Build(set); err != nil {
		return nil, fmt.Errorf("build classifier of node %q: %w", name, err)
	}
	c.nodes[name] = n
	return n, nil
}

// podsWhere lists pods with a network of their own, sorted.
func podsWhere(v store.View, want func(*store.Pod) bool) []*store.Pod {
	var out []*store.Pod
	for p := range v.Pods() {
		if !p.HostNetwork && want(p) {
			out = append(out, p)
		}
	}
	SortPods(out)
	return out
}

// SortPods sorts pods by namespace and name.
func SortPods(pods []*store.Pod) {
	slices.SortFunc(pods, func(a, b *store.Pod) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
}

func endpoints(pods []*store.Pod) []endpoint.Endpoint {
	out := make([]endpoint.Endpoint, len(pods))
	for i, p := range pods {
		out[i] = endpoint.Endpoint{ID: endpoint.ID(i + 1), Namespace: p.Namespace, Name: p.Name}
	}
	return out
}

// Explain asks resolve.Explain, which knows nothing of compiled rules, the
// same question as Judge.
func (c *Cluster) Explain(src, dst End, pair Pair, f Flow) (d resolve.Decision, err error) {
	f = f.between(pair)
	q := resolve.Query{Src: src.query(pair.Src), Dst: dst.query(pair.Dst), Protocol: f.Protocol, Port: f.Port}
	c.Read(func(v store.View) {
		world := resolve.World{NodeAddrs: map[string][]netip.Addr{"": nodeAddrs(v, "")}, Domains: c.domains}
		d, err = resolve.Explain(v, q, world)
	})
	return d, err
}

// nodeAddrs returns the addresses of a node. Pods that name no node are
// together on one, as in a lab: it has the addresses of the host-network pods
// among them, and is the only Node that there is, if there is only one.
func nodeAddrs(v store.View, name string) []netip.Addr {
	out := v.NodeAddrs(name)
	if name != "" {
		return out
	}
	for p := range v.Pods() {
		if p.HostNetwork && p.NodeName == "" {
			out = append(out, p.Addrs()...)
		}
	}
	if nodes := slices.Collect(v.Nodes()); len(nodes) == 1 {
		out = append(out, v.NodeAddrs(nodes[0].Name)...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
