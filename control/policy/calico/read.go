package calico

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
)

// reading is the reading of one object.
type reading struct {
	shape
	namespace string // empty for a global one
	faults    []fault
}

type fault struct{ field, reason string }

func (r *reading) fault(field, format string, args ...any) {
	r.faults = append(r.faults, fault{field, fmt.Sprintf(format, args...)})
}

// faulty reports whether there is a fault at or below a field.
func (r *reading) faulty(field string) bool {
	return slices.ContainsFunc(r.faults, func(f fault) bool {
		rest, ok := strings.CutPrefix(f.field, field)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// rejections says what is wrong, and what holds instead.
func (r *reading) rejections(p *policy.Policy) []policy.Rejection {
	effect := "it is staged, so nothing is closed for it"
	if !p.Staged {
		var closed []string
		if p.Ingress.Applies {
			closed = append(closed, "ingress")
		}
		if p.Egress.Applies {
			closed = append(closed, "egress")
		}
		effect = "the pods that it selects are isolated for " + strings.Join(closed, " and ")
	}
	out := make([]policy.Rejection, len(r.faults))
	for i, f := range r.faults {
		out[i] = policy.Rejection{Object: p.Origin.String(), Field: f.field, Reason: f.reason, Effect: effect}
	}
	return out
}

func (r *reading) name(name string) {
	if !r.global {
		for _, msg := range validation.IsDNS1123Label(r.namespace) {
			r.fault("metadata.namespace", "Invalid value: %q: %s", r.namespace, msg)
		}
	}
	if name == "" {
		r.fault("metadata.name", "Required value: name or generateName is required")
		return
	}
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		r.fault("metadata.name", "Invalid value: %q: %s", name, msg)
	}
}

// spec is what is read of a spec before its rules are understood.
type spec struct {
	tier                                                string
	stagedAction                                        string
	order                                               *float64
	selector, namespaceSelector, serviceAccountSelector string
	types                                               []string
	ingress, egress                                     []*rule
	wide                                                bool // could govern anything
	unplaced                                            bool // could be in any tier
}

// governs applies Calico's default for types.
func (s *spec) governs(direction string) bool {
	switch {
	case s.wide:
		return true
	case len(s.types) > 0:
		return slices.Contains(s.types, direction)
	case direction == "Ingress":
		return len(s.ingress) > 0 || len(s.egress) == 0
	}
	return len(s.egress) > 0
}

// spec reads a spec, as far as it is legible.
func (r *reading) spec(raw json.RawMessage) *spec {
	s := &spec{tier: DefaultTier}
	fields := map[string]json.RawMessage{}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &fields); err != nil {
			r.fault("spec", "Invalid value: must be an object")
			s.wide, s.unplaced = true, true
			return s
		}
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if string(fields[key]) != "null" {
			r.specField(s, key, fields[key])
		}
	}
	r.checkSpec(s)
	return s
}

func (r *reading) specField(s *spec, key string, raw json.RawMessage) {
	at := "spec." + key
	flag := func() {
		var on bool
		if r.decode(at, raw, &on) && on {
			r.fault(at, "%s is not supported: policies are enforced on pods, after the node's translations", key)
		}
	}
	switch {
	case key == "tier":
		s.unplaced = !r.decode(at, raw, &s.tier)
		if s.tier == "" {
			s.tier = DefaultTier
		}
	case key == "order":
		if !r.decode(at, raw, &s.order) {
			unplaced := float64(policy.OrderUnplaced)
			s.order = &unplaced
		}
	case key == "selector":
		r.decode(at, raw, &s.selector)
	case key == "serviceAccountSelector":
		r.decode(at, raw, &s.serviceAccountSelector)
	case key == "namespaceSelector" && r.global:
		r.decode(at, raw, &s.namespaceSelector)
	case key == "types":
		s.wide = !r.decode(at, raw, &s.types) || s.wide
	case key == "ingress":
		s.ingress = r.readRules(at, raw)
	case key == "egress":
		s.egress = r.readRules(at, raw)
	case (key == "doNotTrack" || key == "preDNAT" || key == "applyOnForward") && r.global:
		flag()
	case key == "performanceHints":
		r.readHints(at, raw)
	case key == "stagedAction" && r.staged:
		if r.decode(at, raw, &s.stagedAction) && !slices.Contains([]string{"", "Set", "Delete", "Learn", "Ignore"}, s.stagedAction) {
			r.fault(at, "Unsupported value: %q: supported values: \"Set\", \"Delete\", \"Learn\", \"Ignore\"", s.stagedAction)
		}
	default:
		r.fault(at, "unknown field")
	}
}

func (r *reading) readHints(at string, raw json.RawMessage) {
	var hints []string
	if !r.decode(at, raw, &hints) {
		return
	}
	for i, h := range hints {
		if h != "AssumeNeededOnEveryNode" {
			r.fault(fmt.Sprintf("%s[%d]", at, i), "Unsupported value: %q: supported values: \"AssumeNeededOnEveryNode\"", h)
		} else if i > 0 {
			r.fault(fmt.Sprintf("%s[%d]", at, i), "Duplicate value: %q", h)
		}
	}
}

// readRules reads a list of rules. One that is illegible counts all the same.
func (r *reading) readRules(at string, raw json.RawMessage) []*rule {
	var list []json.RawMessage
	if !r.decode(at, raw, &list) {
		return []*rule{{}}
	}
	out := make([]*rule, len(list))
	for i, raw := range list {
		out[i] = &rule{at: fmt.Sprintf("%s[%d]", at, i)}
		if !r.decode(out[i].at, raw, out[i]) {
			out[i] = &rule{}
		}
	}
	return out
}

var unknownField = regexp.MustCompile(`^unknown field "(.*)"$`)

// decode reads a field, and what is in it that shouldn't be.
func (r *reading) decode(at string, raw json.RawMessage, into any) bool {
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		r.fault(at, "Invalid value: %v", cause(err))
		return false
	}
	for _, e := range strict {
		if m := unknownField.FindStringSubmatch(e.Error()); m != nil {
			r.fault(at+"."+m[1], "unknown field")
		} else {
			r.fault(at, "Invalid value: %v", e)
		}
	}
	return true
}

// cause says what is wrong in words of the user's.
func cause(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		where := ""
		if wrong.Field != "" {
			where = wrong.Field + " "
		}
		return fmt.Errorf("%smust not be a %s", where, wrong.Value)
	}
	return err
}

// checkSpec judges what of a spec is no rule.
func (r *reading) checkSpec(s *spec) {
	for _, msg := range validation.IsDNS1123Subdomain(s.tier) {
		r.fault("spec.tier", "Invalid value: %q: %s", s.tier, msg)
		s.unplaced = true
	}
	for i, t := range s.types {
		at := fmt.Sprintf("spec.types[%d]", i)
		switch {
		case t != "Ingress" && t != "Egress":
			r.fault(at, "Unsupported value: %q: supported values: \"Ingress\", \"Egress\"", t)
			s.wide = true
		case slices.Index(s.types, t) < i:
			r.fault(at, "Duplicate value: %q", t)
		}
	}
	if s.stagedAction == "Delete" && (s.order != nil || s.selector != "" || s.namespaceSelector != "" || s.serviceAccountSelector != "" ||
		len(s.types) > 0 || len(s.ingress) > 0 || len(s.egress) > 0) {
		r.fault("spec", "Forbidden: nothing but tier may be given if stagedAction is Delete")
	}
	for i, rule := range s.ingress {
		r.checkRule(rule, i, false)
	}
	for i, rule := range s.egress {
		r.checkRule(rule, i, true)
	}
}
