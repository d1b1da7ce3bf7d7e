package filter

import (
	"fmt"
	"path"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// DefaultCluster is the cluster of a node whose name says none.
const DefaultCluster = "default"

// nodes matches "node", "cluster/node" and "cluster/", each part with * for any
// run of characters.
func nodes(f *flowpb.FlowFilter) (Match, error) {
	if len(f.NodeName) == 0 {
		return nil, nil
	}
	type name struct{ cluster, node pattern }
	var want []name
	for _, v := range f.NodeName {
		cluster, node, ok := strings.Cut(v, "/")
		if !ok {
			cluster, node = "", v
		}
		if v == "" || strings.Contains(node, "/") {
			return nil, &Error{"node_name", fmt.Sprintf("%q: want a name, or a cluster and a name", v)}
		}
		parts := []string{cluster, node}
		for i := range parts {
			if parts[i] == "" {
				parts[i] = "*"
			}
		}
		p, err := patterns("node_name", parts)
		if err != nil {
			return nil, err
		}
		want = append(want, name{p[0], p[1]})
	}
	return func(f *flowpb.Flow) bool {
		cluster, node, ok := strings.Cut(f.GetNodeName(), "/")
		if !ok {
			cluster, node = DefaultCluster, f.GetNodeName()
		}
		return node != "" && slices.ContainsFunc(want, func(n name) bool { return n.cluster.matches(cluster) && n.node.matches(node) })
	}, nil
}

// pattern is a domain name with stars, in lower case and without a final dot.
type pattern string

func patterns(field string, values []string) ([]pattern, error) {
	var out []pattern
	for _, v := range values {
		p := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(v)), ".")
		if p == "" || strings.HasSuffix(p, ".") || strings.Trim(p, "abcdefghijklmnopqrstuvwxyz0123456789-_.*") != "" {
			return nil, &Error{field, fmt.Sprintf("pattern %q: want a name, in which * stands for anything", v)}
		}
		out = append(out, pattern(p))
	}
	return out, nil
}

// matches compares without regard to case. The pattern holds none of path's
// other wildcards, and a name no slash.
func (p pattern) matches(name string) bool {
	ok, err := path.Match(string(p), strings.ToLower(name))
	return err == nil && ok
}
