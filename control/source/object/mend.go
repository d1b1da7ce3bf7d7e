package object

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
)

// mending makes a salvager of a conversion that closes what lacks something:
// it is given what is legible of the object.
func mending[T any](convert conversion[*T]) salvager {
	return func(doc []byte, cause error) (*policy.Policy, []policy.Rejection) {
		doc = mend(doc, func(part []byte) bool { return kjson.UnmarshalCaseSensitivePreserveInts(part, new(T)) == nil })
		obj := new(T)
		strict, err := kjson.UnmarshalStrict(doc, obj)
		if err != nil {
			obj = new(T) // nothing is legible
		}
		known := append(unknownInSpec(strict), illegible(cause))
		v, rejections := convert(obj, doc, known)
		return v.(*policy.Policy), rejections
	}
}

// illegible says, as an API server does, why a document could not be decoded.
func illegible(cause error) *field.Error {
	var wrong *json.UnmarshalTypeError
	if errors.As(cause, &wrong) {
		return &field.Error{Type: field.ErrorTypeTypeInvalid, Field: wrong.Field, BadValue: wrong.Value, Detail: "must be of type " + wrong.Type.String()}
	}
	return &field.Error{Type: field.ErrorTypeForbidden, Field: "spec", Detail: cause.Error()}
}

// mend leaves out of an object what is of a wrong type. Of an illegible element
// of a list in its spec, a rule, the action stays.
func mend(doc []byte, legible func(part []byte) bool) []byte {
	var outer struct {
		Metadata map[string]json.RawMessage `json:"metadata"`
		Spec     map[string]json.RawMessage `json:"spec"`
	}
	_ = kjson.UnmarshalCaseSensitivePreserveInts(doc, &outer) // what is illegible stays empty
	out := map[string]any{}
	maps.DeleteFunc(outer.Metadata, func(key string, raw json.RawMessage) bool {
		return !legible(wrap("metadata", map[string]any{key: raw}))
	})
	out["metadata"] = outer.Metadata
	spec := map[string]any{}
	fits := func(key string, value any) bool { return legible(wrap("spec", map[string]any{key: value})) }
	for _, key := range slices.Sorted(maps.Keys(outer.Spec)) {
		var list []json.RawMessage
		switch raw := outer.Spec[key]; {
		case fits(key, raw):
			spec[key] = raw
		case kjson.UnmarshalCaseSensitivePreserveInts(raw, &list) == nil:
			for i, e := range list {
				if fits(key, []json.RawMessage{e}) {
					continue
				}
				list[i] = json.RawMessage("{}")
				var rule struct {
					Action json.RawMessage `json:"action"`
				}
				_ = kjson.UnmarshalCaseSensitivePreserveInts(e, &rule)
				if only := wrap("action", rule.Action); rule.Action != nil && fits(key, []json.RawMessage{only}) {
					list[i] = only
				}
			}
			spec[key] = list
		case key == "ingress" || key == "egress": // whatever it was to say
			spec[key] = []any{map[string]any{}}
		}
	}
	out["spec"] = spec
	text, _ := json.Marshal(out)
	return text
}

// wrap returns an object of one field, in JSON.
func wrap(key string, value any) []byte {
	text, _ := json.Marshal(map[string]any{key: value})
	return text
}
