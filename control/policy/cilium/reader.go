package cilium

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

// fault is why an object is not in force as written.
type fault struct{ field, reason string }

// reading is the state of reading one object.
type reading struct {
	namespace string // of a CiliumNetworkPolicy, else empty
	init      bool   // the spec is about pods that have no labels yet
	faults    []fault
	notes     []fault // what is valid and does nothing
	lookups   []policy.Lookup
}

func (r *reading) fault(field, format string, args ...any) {
	r.faults = append(r.faults, fault{field, fmt.Sprintf(format, args...)})
}

// rejections lists faults by field, and what does nothing.
func (r *reading) rejections(origin policy.Origin, specs []spec) []policy.Rejection {
	var out []policy.Rejection
	effect := effectOf(specs)
	slices.SortStableFunc(r.faults, func(a, b fault) int { return strings.Compare(a.field, b.field) })
	for _, f := range slices.Compact(r.faults) {
		out = append(out, policy.Rejection{Object: origin.String(), Field: f.field, Reason: f.reason, Effect: effect})
	}
	for _, f := range r.notes {
		out = append(out, policy.Rejection{Object: origin.String(), Field: f.field, Reason: f.reason,
			Effect: "this spec does nothing; the rest of the object is in force"})
	}
	return out
}

func effectOf(specs []spec) string {
	var in, out, denies bool
	for i := range specs {
		s := &specs[i]
		if s.node != nil {
			continue
		}
		in, out = in || s.ingress.named, out || s.egress.named
		denies = denies || s.ingress.denies || s.egress.denies
	}
	directions := "ingress and egress"
	switch {
	case !in && !out:
		return "it names no direction, so nothing is enforced"
	case !out:
		directions = "ingress"
	case !in:
		directions = "egress"
	}
	effect := "the pods that it selects are isolated for " + directions
	if denies {
		effect += "; what it denies is denied, and all if that is not understood"
	}
	return effect
}

// node is one JSON value and where it stands.
type node struct {
	r  *reading
	at string
	v  any
}

// root parses a document.
func (r *reading) root(at string, raw []byte) (node, bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	n := node{r: r, at: at}
	if err := d.Decode(&n.v); err != nil {
		r.fault(at, "Invalid value: %v", err)
		return n, false
	}
	return n, true
}

// object returns the fields of an object. A field that is not known would
// change what the rest means, so it is a fault.
func (n node) object(known ...string) (map[string]node, bool) {
	m, ok := n.v.(map[string]any)
	if !ok {
		n.r.fault(n.at, "Invalid value: %s: must be an object", n.text())
		return nil, false
	}
	out := make(map[string]node, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] == nil {
			continue // null is as good as absent
		}
		child := node{n.r, n.at + "." + k, m[k]}
		if !slices.Contains(known, k) {
			n.r.fault(child.at, "unknown field")
			continue
		}
		out[k] = child
	}
	return out, true
}

// list returns the elements of a list; never nil if it is one.
func (n node) list() []node {
	l, ok := n.v.([]any)
	if !ok {
		n.r.fault(n.at, "Invalid value: %s: must be a list", n.text())
		return nil
	}
	out := make([]node, len(l))
	for i, v := range l {
		out[i] = node{n.r, n.at + "[" + strconv.Itoa(i) + "]", v}
	}
	return out
}

func (n node) string() string {
	s, ok := n.v.(string)
	if !ok {
		n.r.fault(n.at, "Invalid value: %s: must be a string", n.text())
	}
	return s
}

func (n node) strings() []string {
	var out []string
	for _, e := range n.list() {
		out = append(out, e.string())
	}
	return out
}

func (n node) bool() *bool {
	b, ok := n.v.(bool)
	if !ok {
		n.r.fault(n.at, "Invalid value: %s: must be true or false", n.text())
	}
	return &b
}

// number returns an integer that fits an int32.
func (n node) number() int {
	if num, ok := n.v.(json.Number); ok {
		if i, err := num.Int64(); err == nil && i >= math.MinInt32 && i <= math.MaxInt32 {
			return int(i)
		}
	}
	n.r.fault(n.at, "Invalid value: %s: must be an integer", n.text())
	return 0
}

// text spells a value out for people.
func (n node) text() string {
	b, err := json.Marshal(n.v)
	if err != nil || len(b) > 80 {
		return fmt.Sprintf("a value of %d bytes", len(b))
	}
	return string(b)
}
