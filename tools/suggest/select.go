package suggest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// group is pods that the same labels select.
type group struct {
	namespace string
	labels    map[string]string
	pods      []*party // sorted
	selector  map[string]string
	without   []string // labels of others that the selector would select as well
}

func (g *group) local() bool {
	return slices.ContainsFunc(g.pods, func(p *party) bool { return p.local })
}

// Prefixes of labels in flows.
const (
	labelSource = "k8s:"
	labelOwn    = "io.cilium.k8s."
	labelNS     = "io.cilium.k8s.namespace.labels."
)

// passing lists labels that a pod's successor has another value of, or none.
var passing = []string{
	"pod-template-hash", "controller-revision-hash", "pod-template-generation", "rollouts-pod-template-hash",
	"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
	"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name",
	"batch.kubernetes.io/job-completion-index", "version", "app.kubernetes.io/version", "helm.sh/chart", "chart",
	"app.kubernetes.io/managed-by", "heritage", "release-time",
	"io.kubernetes.pod.namespace", "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "kubernetes.io/hostname",
}

// lasting returns the labels of a pod that its successors have too, and those of
// its namespace.
func lasting(labels []string) (own, namespace map[string]string) {
	own, namespace = map[string]string{}, map[string]string{}
	for _, l := range labels {
		text, ok := strings.CutPrefix(l, labelSource)
		if !ok {
			continue
		}
		key, value, _ := strings.Cut(text, "=")
		if ns, ok := strings.CutPrefix(key, labelNS); ok {
			namespace[ns] = value
			continue
		}
		if !strings.HasPrefix(key, labelOwn) && !slices.Contains(passing, key) {
			own[key] = value
		}
	}
	return own, namespace
}

// preferred lists sets of labels by which people select, the best first.
var preferred = [][]string{
	{"app.kubernetes.io/name"}, {"app"}, {"k8s-app"},
	{"app.kubernetes.io/name", "app.kubernetes.io/component"}, {"app", "component"}, {"app", "tier"}, {"app", "role"},
	{"app.kubernetes.io/name", "app.kubernetes.io/instance"},
	{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"},
}

// group sorts pods by namespace and labels, and finds selectors.
func (r *Result) group() []*group {
	byKey := map[string]*group{}
	for _, name := range slices.Sorted(maps.Keys(r.parties)) {
		p := r.parties[name]
		if !p.isPod() {
			continue
		}
		key := p.namespace + "\x00" + labelText(p.labels)
		if len(p.labels) == 0 {
			key += p.pod // which nothing is known to have in common with others
		}
		g := byKey[key]
		if g == nil {
			g = &group{namespace: p.namespace, labels: p.labels}
			byKey[key] = g
		}
		p.group = g
		g.pods = append(g.pods, p)
	}
	groups := slices.SortedFunc(maps.Values(byKey), func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.pods[0].pod, b.pods[0].pod))
	})
	for _, g := range groups {
		g.selector = g.choose(groups)
		g.without = g.exclude(groups)
	}
	return groups
}

// exclude returns labels that no pod of the group has, and all others that its
// selector selects have one of. There are some only where the selector is all of
// the group's labels: those that it selects besides have more.
func (g *group) exclude(groups []*group) []string {
	var keys []string
	for _, o := range groups {
		if o == g || o.namespace != g.namespace || len(g.selector) == 0 || !selects(g.selector, o.labels) {
			continue
		}
		has := func(k string) bool { _, ok := o.labels[k]; return ok }
		more := slices.DeleteFunc(slices.Sorted(maps.Keys(o.labels)), func(k string) bool { _, own := g.labels[k]; return own })
		if !slices.ContainsFunc(keys, has) && len(more) > 0 {
			keys = append(keys, more[0])
		}
	}
	slices.Sort(keys)
	return keys
}

// choose returns the first of the preferred sets of labels that no other pods
// seen have, else all labels.
func (g *group) choose(groups []*group) map[string]string {
	for _, keys := range preferred {
		s := map[string]string{}
		for _, k := range keys {
			if v, ok := g.labels[k]; ok {
				s[k] = v
			}
		}
		if len(s) == len(keys) && !slices.ContainsFunc(groups, func(o *group) bool { return o != g && o.namespace == g.namespace && selects(s, o.labels) }) {
			return s
		}
	}
	return g.labels
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if has, ok := labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// name returns what the pods are called.
func (g *group) name() string {
	name := ""
	for _, p := range g.pods {
		_, workload, _ := strings.Cut(p.workload, "/")
		if workload == "" || name != "" && workload != name {
			name = ""
			break
		}
		name = workload
	}
	for _, key := range []string{"app.kubernetes.io/name", "app", "k8s-app", "name"} {
		if name == "" {
			name = g.labels[key]
		}
	}
	if name == "" {
		name = g.pods[0].pod
	}
	clean := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '-'
	}, strings.ToLower(name))
	// Of a name of Kubernetes, what is between dots begins and ends with a letter or digit.
	var parts []string
	for part := range strings.SplitSeq(clean[:min(len(clean), 200)], ".") {
		if part = strings.Trim(part, "-"); part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ".")
}
