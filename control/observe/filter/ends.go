package filter

import (
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	k8slabels "k8s.io/apimachinery/pkg/labels"
)

// both joins what holds for source and destination.
func both[T any](src, dst []T, match func([]T, func(*flowpb.Flow) *flowpb.Endpoint) (Match, error)) (Match, error) {
	var parts [2]Match
	var err error
	if len(src) > 0 {
		if parts[0], err = match(src, (*flowpb.Flow).GetSource); err != nil {
			return nil, err
		}
	}
	if len(dst) > 0 {
		if parts[1], err = match(dst, (*flowpb.Flow).GetDestination); err != nil {
			return nil, err
		}
	}
	return all(parts[:]...), nil
}

// pods matches "prefix" (in namespace default), "namespace/prefix",
// "namespace/" and "/prefix" (in any namespace).
func pods(f *flowpb.FlowFilter) (Match, error) {
	return both(f.SourcePod, f.DestinationPod, func(values []string, end func(*flowpb.Flow) *flowpb.Endpoint) (Match, error) {
		type name struct{ namespace, prefix string }
		var want []name
		for _, v := range values {
			namespace, prefix, ok := strings.Cut(v, "/")
			if v == "" {
				return nil, &Error{"pod", "the name is empty"}
			}
			if !ok {
				namespace, prefix = "default", v
			}
			want = append(want, name{namespace, prefix})
		}
		return func(f *flowpb.Flow) bool {
			e := end(f)
			return (e.GetNamespace() != "" || e.GetPodName() != "") && slices.ContainsFunc(want, func(n name) bool {
				return (n.namespace == "" || n.namespace == e.GetNamespace()) && strings.HasPrefix(e.GetPodName(), n.prefix)
			})
		}, nil
	})
}

// workloads matches by name, kind or both; what is empty matches all.
func workloads(f *flowpb.FlowFilter) (Match, error) {
	return both(f.SourceWorkload, f.DestinationWorkload, func(want []*flowpb.Workload, end func(*flowpb.Flow) *flowpb.Endpoint) (Match, error) {
		return func(f *flowpb.Flow) bool {
			return slices.ContainsFunc(end(f).GetWorkloads(), func(has *flowpb.Workload) bool {
				return slices.ContainsFunc(want, func(w *flowpb.Workload) bool {
					return (w.GetName() == "" || w.GetName() == has.GetName()) && (w.GetKind() == "" || w.GetKind() == has.GetKind())
				})
			})
		}, nil
	})
}

func identities(f *flowpb.FlowFilter) (Match, error) {
	return both(f.SourceIdentity, f.DestinationIdentity, func(want []uint32, end func(*flowpb.Flow) *flowpb.Endpoint) (Match, error) {
		return func(f *flowpb.Flow) bool {
			e := end(f)
			return e != nil && slices.Contains(want, e.GetIdentity())
		}, nil
	})
}

func clusters(f *flowpb.FlowFilter) (Match, error) {
	return both(f.SourceClusterName, f.DestinationClusterName, func(want []string, end func(*flowpb.Flow) *flowpb.Endpoint) (Match, error) {
		patterns, err := patterns("cluster_name", want)
		if err != nil {
			return nil, err
		}
		return func(f *flowpb.Flow) bool {
			return slices.ContainsFunc(patterns, func(p pattern) bool { return p.matches(end(f).GetClusterName()) })
		}, nil
	})
}

// labels matches Kubernetes' label selectors, whose keys may name a source:
// "app=web", "k8s:app in (web, api)", "reserved:world".
func labels(f *flowpb.FlowFilter) (Match, error) {
	ends, err := both(f.SourceLabel, f.DestinationLabel, func(values []string, end func(*flowpb.Flow) *flowpb.Endpoint) (Match, error) {
		return selectors("label", values, func(f *flowpb.Flow) []string { return end(f).GetLabels() })
	})
	if err != nil || len(f.NodeLabels) == 0 {
		return ends, err
	}
	node, err := selectors("node_labels", f.NodeLabels, (*flowpb.Flow).GetNodeLabels)
	return all(ends, node), err
}

func selectors(field string, values []string, get func(*flowpb.Flow) []string) (Match, error) {
	var want []k8slabels.Selector
	for _, v := range values {
		s, err := k8slabels.Parse(withSources(v))
		if err != nil {
			return nil, &Error{field, fmt.Sprintf("selector %q: %v", v, err)}
		}
		want = append(want, s)
	}
	return func(f *flowpb.Flow) bool {
		has := labelArray(get(f))
		return slices.ContainsFunc(want, func(s k8slabels.Selector) bool { return s.Matches(has) })
	}, nil
}

// anySource is the source of a key that names none, nodeSource that of a label that
// names none: those of nodes don't.
const (
	anySource  = "any"
	nodeSource = "k8s"
)

// withSources writes "source.key" for each key of a selector, because
// Kubernetes' grammar has no colon in keys: "any." where no source is given.
func withSources(selector string) string {
	var out strings.Builder
	depth, start := 0, 0
	requirement := func(r string) {
		lead := len(r) - len(strings.TrimLeft(r, " \t!"))
		out.WriteString(r[:lead])
		r = r[lead:]
		end := strings.IndexAny(r, " \t=!<>")
		if end < 0 {
			end = len(r)
		}
		if key := r[:end]; strings.Contains(key, ":") {
			out.WriteString(strings.Replace(key, ":", ".", 1))
		} else if key != "" {
			out.WriteString(anySource + "." + key)
		}
		out.WriteString(r[end:])
	}
	for i, c := range selector {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				requirement(selector[start:i])
				out.WriteByte(',')
				start = i + 1
			}
		}
	}
	requirement(selector[start:])
	return out.String()
}

// labelArray makes labels as "source:key=value" answer for selectors of
// withSources.
type labelArray []string

func (l labelArray) find(key string) (string, bool) {
	source, name, _ := strings.Cut(key, ".")
	for _, label := range l {
		k, value, _ := strings.Cut(label, "=")
		s, k, ok := strings.Cut(k, ":")
		if !ok {
			s, k = nodeSource, s
		}
		if k == name && (source == anySource || source == s) {
			return value, true
		}
	}
	return "", false
}

// Has implements labels.Labels.
func (l labelArray) Has(key string) bool { _, ok := l.find(key); return ok }

// Get implements labels.Labels.
func (l labelArray) Get(key string) string { v, _ := l.find(key); return v }

// Lookup implements labels.Labels.
func (l labelArray) Lookup(key string) (string, bool) { return l.find(key) }
