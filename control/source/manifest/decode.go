package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
)

// file is what one file says.
type file struct {
	sum        [32]byte
	broken     bool // some of it could not be read
	objects    []object
	retain     []policy.Origin // objects whose new version could not be read
	rejections []policy.Rejection
	notes      []string
	skipped    []skip
}

// object is one object in Sluice's types.
type object struct {
	origin policy.Origin
	source string
	value  any // *store.Namespace, *store.Pod, *store.Node, *policy.Policy, or nil if only its name counts
}

// skip is an object of a kind that Sluice has no use for.
type skip struct{ kind, source string }

// header is what is read of every object first.
type header struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

// decodeFile reads all documents of a file.
func decodeFile(name string, data []byte) *file {
	f := &file{}
	for _, p := range split(data) {
		source := fmt.Sprintf("%s document %d", name, p.number)
		doc, err := p.toJSON()
		switch {
		case err != nil:
			f.fail(source, err)
		case doc != nil:
			f.decode(source, doc)
		}
	}
	return f
}

// fail records that what stood at source could not be read.
func (f *file) fail(source string, err error) {
	f.broken = true
	f.rejections = append(f.rejections, policy.Rejection{Source: source, Reason: err.Error(),
		Effect: "what this file last said, and doesn't say any more, stays in force"})
}

func (f *file) decode(source string, doc []byte) {
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(doc, &h); err != nil {
		f.fail(source, err)
		return
	}
	if h.Kind == "" {
		f.fail(source, fmt.Errorf("kind: Required value"))
		return
	}
	if h.Kind == "List" || strings.HasSuffix(h.Kind, "List") && h.Items != nil {
		for i, item := range h.Items {
			f.decode(fmt.Sprintf("%s item %d", source, i+1), withType(item, h))
		}
		return
	}
	k, ok := kinds[h.APIVersion+" "+h.Kind]
	if !ok {
		f.skipped = append(f.skipped, skip{h.APIVersion + " " + h.Kind, source})
		return
	}
	k.decode(f, source, doc)
}

// withType gives an item of a typed list, such as a PodList, its type, which
// the API leaves out there.
func withType(item []byte, list header) []byte {
	kind := strings.TrimSuffix(list.Kind, "List")
	var fields map[string]json.RawMessage
	if kind == "" || json.Unmarshal(item, &fields) != nil || fields == nil || fields["kind"] != nil {
		return item
	}
	fields["kind"], _ = json.Marshal(kind)
	fields["apiVersion"], _ = json.Marshal(list.APIVersion)
	out, err := json.Marshal(fields)
	if err != nil {
		return item
	}
	return out
}

// kindOf knows how to read one kind of object.
type kindOf struct {
	decode func(f *file, source string, doc []byte)
}

// read makes a kindOf from how one is converted. salvage, if not nil, makes
// the most of an object whose fields have wrong types.
func read[T any, P interface {
	*T
	metav1.Object
}](kind string, namespaced bool, convert func(f *file, o object, obj P) any, salvage func(doc []byte, err error) (*policy.Policy, policy.Rejection)) kindOf {
	return kindOf{func(f *file, source string, doc []byte) {
		obj := P(new(T))
		strict, err := kjson.UnmarshalStrict(doc, obj)
		if err != nil {
			f.wrongType(kind, namespaced, source, doc, err, salvage)
			return
		}
		if namespaced && obj.GetNamespace() == "" {
			obj.SetNamespace(metav1.NamespaceDefault)
		} else if !namespaced {
			obj.SetNamespace("")
		}
		o := object{source: source, origin: policy.Origin{Kind: kind, Namespace: obj.GetNamespace(), Name: obj.GetName()}}
		for _, s := range strict {
			f.notes = append(f.notes, fmt.Sprintf("%s: %s: %s, ignored", source, o.origin, s))
		}
		o.value = convert(f, o, obj)
		f.objects = append(f.objects, o)
	}}
}

// wrongType records an object that has a field of a wrong type.
func (f *file) wrongType(kind string, namespaced bool, source string, doc []byte, err error,
	salvage func([]byte, error) (*policy.Policy, policy.Rejection)) {
	if salvage != nil {
		p, r := salvage(doc, err)
		r.Source = source
		f.rejections = append(f.rejections, r)
		f.objects = append(f.objects, object{origin: p.Origin, source: source, value: p})
		return
	}
	var named struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	if json.Unmarshal(doc, &named) != nil || named.Metadata.Name == "" {
		f.fail(source, err)
		return
	}
	o := policy.Origin{Kind: kind, Name: named.Metadata.Name}
	if namespaced {
		o.Namespace = named.Metadata.Namespace
		if o.Namespace == "" {
			o.Namespace = metav1.NamespaceDefault
		}
	}
	f.retain = append(f.retain, o)
	f.rejections = append(f.rejections, policy.Rejection{Object: o.String(), Source: source, Reason: err.Error(),
		Effect: "its last valid version stays, if there is one"})
}

// reject records a field that doesn't hold as written.
func (f *file) reject(o object, field, reason, effect string) {
	f.rejections = append(f.rejections, policy.Rejection{
		Object: o.origin.String(), Source: o.source, Field: field, Reason: reason, Effect: effect})
}

// describe sums up what was skipped.
func describe(skipped []skip) []string {
	count := map[string]int{}
	first := map[string]string{}
	for _, s := range skipped {
		if count[s.kind]++; count[s.kind] == 1 {
			first[s.kind] = s.source
		}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(count)) {
		out = append(out, fmt.Sprintf("%s: kind not used, %d skipped, the first in %s", k, count[k], first[k]))
	}
	return out
}
