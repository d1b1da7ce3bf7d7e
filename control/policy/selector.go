package policy

import (
	"slices"
	"strconv"
	"strings"
)

// EntityKind is what an address belongs to.
type EntityKind uint8

const (
	KindPod EntityKind = iota
	KindNode
	KindNetworkSet // a set of CIDRs with labels of its own
)

// Entity is what selectors look at: everything that a pod, or a node, has in
// common with others of the same labels.
type Entity struct {
	Kind            EntityKind
	Namespace       string            // of a pod, or of a network set that has one
	NamespaceLabels map[string]string // of that namespace
	Labels          map[string]string // of the pod, node or network set
	ServiceAccount  string            // of a pod
	AccountLabels   map[string]string // of a pod's service account
}

// Condition is what a language with selectors of its own asks of an entity.
// Two with the same String are the same condition.
type Condition interface {
	Holds(e *Entity) bool
	String() string
}

// Operator is how a Requirement looks at a label.
type Operator uint8

const (
	In Operator = iota
	NotIn
	Exists
	DoesNotExist
)

// Requirement is one condition on a set of labels.
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string // sorted, for In and NotIn
}

// Matches follows labels.Requirement of the Kubernetes API: NotIn and
// DoesNotExist hold for a label that is absent.
func (r *Requirement) Matches(labels map[string]string) bool {
	v, ok := labels[r.Key]
	return r.holds(v, ok)
}

// holds judges a value; ok: there is one.
func (r *Requirement) holds(v string, ok bool) bool {
	switch r.Operator {
	case In:
		return ok && slices.Contains(r.Values, v)
	case NotIn:
		return !ok || !slices.Contains(r.Values, v)
	case Exists:
		return ok
	case DoesNotExist:
		return !ok
	}
	return false
}

// SelectorSpec is what a Selector is compiled from. All of its conditions have
// to hold.
type SelectorSpec struct {
	Kind            EntityKind
	Namespace       string        // exactly this one; empty: any
	NamespaceLabels []Requirement // on the namespace of a pod
	Labels          []Requirement // on the pod or node
	ServiceAccounts []string      // any of them; none: any
	Account         []Requirement // on the name of the service account; Keys are ignored
	Where           []Condition   // of languages of their own
	NetworkSets     bool          // with KindPod: network sets as well as pods
	Nothing         bool          // matches nothing at all
}

// Selector is a compiled SelectorSpec. Equal specs have equal Keys.
type Selector struct {
	spec SelectorSpec
	key  string
	pods *Selector // without network sets
}

// NewSelector compiles a spec, which it sorts and keeps.
func NewSelector(spec SelectorSpec) *Selector {
	sortRequirements(spec.NamespaceLabels)
	sortRequirements(spec.Labels)
	sortRequirements(spec.Account)
	slices.Sort(spec.ServiceAccounts)
	slices.SortFunc(spec.Where, func(a, b Condition) int { return strings.Compare(a.String(), b.String()) })
	s := &Selector{spec: spec, key: specKey(&spec)}
	s.pods = s
	if spec.NetworkSets {
		spec.NetworkSets = false
		s.pods = NewSelector(spec)
	}
	return s
}

// NetworkSets reports whether the selector matches network sets as well.
func (s *Selector) NetworkSets() bool { return s.pods != s }

// Pods returns the selector without the network sets that it matches.
func (s *Selector) Pods() *Selector { return s.pods }

// Key identifies the selector: two with the same Key match the same entities.
func (s *Selector) Key() string { return s.key }

// Spec returns what the selector was compiled from, which must not be changed.
func (s *Selector) Spec() SelectorSpec { return s.spec }

// Kind returns the kind of entity that the selector matches.
func (s *Selector) Kind() EntityKind { return s.spec.Kind }

// Namespace returns the only namespace that the selector matches pods of, or
// "" if there is no such limit.
func (s *Selector) Namespace() string { return s.spec.Namespace }

// MatchesNamespace reports whether pods of a namespace can match at all.
func (s *Selector) MatchesNamespace(name string, labels map[string]string) bool {
	return !s.spec.Nothing && (s.spec.Namespace == "" || s.spec.Namespace == name) &&
		matchAll(s.spec.NamespaceLabels, labels)
}

// Matches reports whether the selector matches e.
func (s *Selector) Matches(e *Entity) bool {
	if e.Kind != s.spec.Kind && !(s.spec.NetworkSets && e.Kind == KindNetworkSet) || s.spec.Nothing {
		return false
	}
	if e.Kind != KindNode && !s.MatchesNamespace(e.Namespace, e.NamespaceLabels) {
		return false
	}
	if len(s.spec.ServiceAccounts) > 0 && !slices.Contains(s.spec.ServiceAccounts, e.ServiceAccount) {
		return false
	}
	for i := range s.spec.Account {
		if !s.spec.Account[i].holds(e.ServiceAccount, true) {
			return false
		}
	}
	for _, c := range s.spec.Where {
		if !c.Holds(e) {
			return false
		}
	}
	return matchAll(s.spec.Labels, e.Labels)
}

// MatchesNothing reports whether the selector is known to match nothing.
func (s *Selector) MatchesNothing() bool { return s.spec.Nothing }

// MatchLabels reports whether all requirements hold for a set of labels.
func MatchLabels(reqs []Requirement, labels map[string]string) bool { return matchAll(reqs, labels) }

func matchAll(reqs []Requirement, labels map[string]string) bool {
	for i := range reqs {
		if !reqs[i].Matches(labels) {
			return false
		}
	}
	return true
}

func sortRequirements(reqs []Requirement) {
	for i := range reqs {
		slices.Sort(reqs[i].Values)
	}
	slices.SortFunc(reqs, func(a, b Requirement) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		if a.Operator != b.Operator {
			return int(a.Operator) - int(b.Operator)
		}
		return slices.Compare(a.Values, b.Values)
	})
}

// specKey spells a sorted spec out; strconv.Quote keeps it unambiguous.
func specKey(s *SelectorSpec) string {
	var b []byte
	if s.Nothing {
		return "nothing"
	}
	b = append(b, "pod"...)
	if s.Kind == KindNode {
		b = append(b[:0], "node"...)
	}
	b = strconv.AppendQuote(append(b, " ns="...), s.Namespace)
	b = appendRequirements(append(b, " nslabels"...), s.NamespaceLabels)
	b = appendRequirements(append(b, " labels"...), s.Labels)
	b = append(b, " sa"...)
	for _, sa := range s.ServiceAccounts {
		b = strconv.AppendQuote(b, sa)
	}
	b = appendRequirements(append(b, " account"...), s.Account)
	if s.NetworkSets {
		b = append(b, " netsets"...)
	}
	for _, c := range s.Where {
		b = strconv.AppendQuote(append(b, " where="...), c.String())
	}
	return string(b)
}

func appendRequirements(b []byte, reqs []Requirement) []byte {
	for i := range reqs {
		b = append(b, '(', '0'+byte(reqs[i].Operator))
		b = strconv.AppendQuote(b, reqs[i].Key)
		for _, v := range reqs[i].Values {
			b = strconv.AppendQuote(b, v)
		}
		b = append(b, ')')
	}
	return b
}
