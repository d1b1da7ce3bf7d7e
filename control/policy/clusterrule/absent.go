package clusterrule

import (
	"encoding/json"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// Absent returns a fault for each field that an object in JSON has to have and
// has not, where a decoder into the API's types would put a value that means
// something: priority 0, or a selector that selects all. fields are those of
// the spec, selectors those of all that names pods.
func Absent(doc []byte, fields, selectors []string) field.ErrorList {
	type peer struct {
		Pods map[string]json.RawMessage `json:"pods"`
	}
	type rule struct {
		From []peer `json:"from"`
		To   []peer `json:"to"`
	}
	var outer struct {
		Spec json.RawMessage `json:"spec"`
	}
	var known struct {
		Subject peer   `json:"subject"`
		Ingress []rule `json:"ingress"`
		Egress  []rule `json:"egress"`
	}
	all := map[string]json.RawMessage{}
	// What is of another type is the decoder's to complain about.
	if kjson.UnmarshalCaseSensitivePreserveInts(doc, &outer) != nil || kjson.UnmarshalCaseSensitivePreserveInts(outer.Spec, &all) != nil || kjson.UnmarshalCaseSensitivePreserveInts(outer.Spec, &known) != nil {
		return nil
	}
	var faults field.ErrorList
	require := func(at *field.Path, in map[string]json.RawMessage, names []string) {
		for _, name := range names {
			if raw, ok := in[name]; !ok || string(raw) == "null" {
				faults = append(faults, field.Required(at.Child(name), ""))
			}
		}
	}
	pods := func(at *field.Path, peers ...peer) {
		for i, p := range peers {
			if p.Pods != nil {
				require(at.Index(i).Child("pods"), p.Pods, selectors)
			}
		}
	}
	spec := field.NewPath("spec")
	require(spec, all, fields)
	if p := known.Subject.Pods; p != nil {
		require(spec.Child("subject", "pods"), p, selectors)
	}
	for i, r := range known.Ingress {
		pods(spec.Child("ingress").Index(i).Child("from"), r.From...)
	}
	for i, r := range known.Egress {
		pods(spec.Child("egress").Index(i).Child("to"), r.To...)
	}
	return slices.Clip(faults)
}
