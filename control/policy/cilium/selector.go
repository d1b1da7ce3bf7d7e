package cilium

import (
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluice-net/sluice/control/policy"
)

// Label sources.
const (
	sourceAny      = "any"
	sourceK8s      = "k8s"
	sourceReserved = "reserved"
)

// The keys under which Cilium gives a pod what is no label of the pod.
const (
	keyNamespace       = "io.kubernetes.pod.namespace"
	keyNamespaceLabels = "io.cilium.k8s.namespace.labels."
	keyServiceAccount  = "io.cilium.k8s.policy.serviceaccount"
	keyCluster         = "io.cilium.k8s.policy.cluster"
)

// cluster is the name of the local cluster by default.
const cluster = "default"

// requirement is a condition on a label of a source.
type requirement struct {
	source, key string
	op          policy.Operator
	values      []string // sorted
	plain       bool     // from matchLabels
}

// selector is a label selector whose keys have sources.
type selector struct{ reqs []requirement }

var operators = map[string]policy.Operator{
	"In": policy.In, "NotIn": policy.NotIn, "Exists": policy.Exists, "DoesNotExist": policy.DoesNotExist,
}

// readSelector reads and validates a selector.
func (r *reading) readSelector(n node) *selector {
	s := &selector{}
	f, ok := n.object("matchLabels", "matchExpressions")
	if !ok {
		return s
	}
	if labels, ok := f["matchLabels"]; ok {
		m, isMap := labels.v.(map[string]any)
		if !isMap {
			r.fault(labels.at, "Invalid value: %s: must be an object", labels.text())
		}
		for k, v := range m {
			value := node{r, labels.at + "[" + k + "]", v}
			s.add(r, labels.at, k, policy.In, []string{r.labelValue(value)}, true)
		}
	}
	if exprs, ok := f["matchExpressions"]; ok {
		for _, e := range exprs.list() {
			r.readExpression(s, e)
		}
	}
	return s
}

func (r *reading) readExpression(s *selector, e node) {
	f, ok := e.object("key", "operator", "values")
	if !ok {
		return
	}
	key, hasKey := f["key"]
	op, hasOp := f["operator"]
	if !hasKey || !hasOp {
		r.fault(e.at, "Required value: key and operator are required")
		return
	}
	o, known := operators[op.string()]
	if !known {
		r.fault(op.at, "Invalid value: %s: not a valid selector operator", op.text())
		return
	}
	var values []string
	if v, ok := f["values"]; ok {
		for _, e := range v.list() {
			values = append(values, r.labelValue(e))
		}
	}
	switch wants := o == policy.In || o == policy.NotIn; {
	case wants && len(values) == 0:
		r.fault(e.at+".values", "Required value: must be specified when `operator` is 'In' or 'NotIn'")
	case !wants && len(values) > 0:
		r.fault(e.at+".values", "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
	}
	s.add(r, key.at, key.string(), o, values, false)
}

func (r *reading) labelValue(n node) string {
	v := n.string()
	for _, msg := range validation.IsValidLabelValue(v) {
		r.fault(n.at, "Invalid value: %q: %s", v, msg)
	}
	return v
}

var validSource = regexp.MustCompile("^[A-Za-z0-9]+$")

// foreign are the sources of labels that addresses have in Cilium and the
// model says in other words.
var foreign = []string{"cidr", "cidrgroup", "fqdn", "node"}

// add validates a key and adds a requirement on it.
func (s *selector) add(r *reading, at, key string, op policy.Operator, values []string, plain bool) {
	source, name, has := strings.Cut(key, ":")
	if !has {
		source, name = sourceAny, key
	}
	switch {
	case strings.Contains(name, ":"):
		r.fault(at, "Invalid value: %q: a valid label key only support ':' character as a source separator with non empty value", key)
		return
	case !validSource.MatchString(source):
		r.fault(at, "Invalid value: %q: label source should be a non empty string with only alphanumeric characters", key)
		return
	case slices.Contains(foreign, source):
		r.fault(at, "Invalid value: %q: labels of source %s are not supported", key, source)
		return
	}
	for _, msg := range validation.IsQualifiedName(name) {
		r.fault(at, "Invalid value: %q: %s", key, msg)
	}
	slices.Sort(values)
	s.reqs = append(s.reqs, requirement{source, name, op, slices.Compact(values), plain})
}

// has reports whether a requirement is on the key of the source.
func (s *selector) has(source, key string) bool {
	return slices.ContainsFunc(s.reqs, func(q requirement) bool { return q.source == source && q.key == key })
}

// hasPrefix is has for all keys that begin with prefix.
func (s *selector) hasPrefix(source, prefix string) bool {
	return slices.ContainsFunc(s.reqs, func(q requirement) bool {
		return q.source == source && strings.HasPrefix(q.key, prefix)
	})
}

// and returns a selector with one more requirement on a label of source k8s.
func (s *selector) and(key string, op policy.Operator, values ...string) *selector {
	return &selector{append(slices.Clone(s.reqs), requirement{sourceK8s, key, op, values, false})}
}

// scoped returns what a selector of peers means in a policy of namespace, ""
// for a clusterwide one whose subject may be pods without labels yet if init
// is set: pods of that namespace and cluster, unless it says otherwise. A
// selector of reserved labels is meant as it stands.
func (s *selector) scoped(namespace string, init bool) *selector {
	if s.hasPrefix(sourceReserved, "") {
		return s
	}
	out := s
	if !s.has(sourceK8s, keyNamespace) && !s.has(sourceAny, keyNamespace) {
		switch {
		case namespace == "" && !init:
			out = out.and(keyNamespace, policy.Exists)
		case namespace != "" && !s.hasPrefix(sourceK8s, keyNamespaceLabels) && !s.hasPrefix(sourceAny, keyNamespaceLabels):
			out = out.and(keyNamespace, policy.In, namespace)
		}
	}
	if !s.has(sourceK8s, keyCluster) && !s.has(sourceAny, keyCluster) {
		out = out.and(keyCluster, policy.In, cluster)
	}
	return out
}

// subject returns the pods that a spec is about. A CiliumNetworkPolicy is
// about pods of its own namespace, whatever matchLabels says under the key of
// the namespace with source k8s; other conditions on it hold besides.
func (r *reading) subject(s *spec) *policy.Selector {
	sel := &selector{}
	if s.subject != nil && !r.faulty(s.at+".endpointSelector") {
		sel = s.subject
	}
	if r.namespace == "" {
		return sel.pods()
	}
	own := &selector{slices.DeleteFunc(slices.Clone(sel.reqs), func(q requirement) bool {
		return q.plain && q.source == sourceK8s && q.key == keyNamespace
	})}
	return own.and(keyNamespace, policy.In, r.namespace).pods()
}

// faulty reports whether there is a fault at or below a field.
func (r *reading) faulty(field string) bool {
	return slices.ContainsFunc(r.faults, func(f fault) bool {
		rest, ok := strings.CutPrefix(f.field, field)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}
