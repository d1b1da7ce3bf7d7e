package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
)

// file is what one file says.
type file struct {
	sum        [32]byte
	broken     bool // some of it could not be read
	objects    []entry
	retain     []policy.Origin // objects whose new version could not be read
	rejections []policy.Rejection
	notes      []string
	skipped    []skip
}

// entry is one object of a file.
type entry struct {
	origin policy.Origin
	source string
	value  any // as object.Put takes it
	kind   object.Kind
	doc    []byte // of a policy
}

// closed returns what stays closed of a policy beside another one of the same
// name; nil if nothing does.
func (e *entry) closed() *policy.Policy {
	if e.doc == nil {
		return nil
	}
	p := e.kind.Closed(e.doc, errors.New("there is another one of that name"))
	if p != nil {
		locate(p, e.source)
	}
	return p
}

// locate adds to the name of a policy, which is none or another's, where it
// stands.
func locate(p *policy.Policy, source string) {
	o := p.Origin
	o.Name = strings.TrimSpace(o.Name + " (" + strings.ReplaceAll(source, "/", ":") + ")")
	for _, part := range append([]*policy.Policy{p}, p.Parts...) {
		part.Origin = o
	}
}

// Quote is the end of the note about text that kubectl takes for booleans.
const Quote = "write them in quotes"

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
		doc, quoted, err := p.read()
		switch {
		case err != nil:
			f.fail(source, err)
		case doc != nil:
			f.decode(source, doc)
		}
		if quoted {
			f.notes = append(f.notes, source+": y, n, yes, no, on and off are taken for text, as in YAML 1.2; kubectl takes them for booleans, and refuses what is here: "+Quote)
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
	k, ok := object.Lookup(h.APIVersion, h.Kind)
	switch {
	case ok:
	case h.APIVersion == "" && object.Known(h.APIVersion, h.Kind):
		f.fail(source, fmt.Errorf("apiVersion: Required value"))
		return
	case object.Known(h.APIVersion, h.Kind):
		f.fail(source, fmt.Errorf("no matches for kind %q in version %q", h.Kind, h.APIVersion))
		return
	default:
		f.skipped = append(f.skipped, skip{h.APIVersion + " " + h.Kind, source})
		return
	}
	o, err := k.Decode(doc)
	if err != nil {
		f.fail(source, err)
		return
	}
	e := entry{source: source, value: o.Value}
	if p, ok := o.Value.(*policy.Policy); ok {
		e.kind, e.doc = k, doc
		if o.Origin.Name == "" {
			locate(p, source)
			o.Origin = p.Origin
			for i := range o.Rejections {
				o.Rejections[i].Object = p.Origin.String()
			}
		}
	}
	e.origin = o.Origin
	for _, r := range o.Rejections {
		r.Source = source
		f.rejections = append(f.rejections, r)
	}
	for _, u := range o.Unknown {
		f.notes = append(f.notes, fmt.Sprintf("%s: %s: %s, ignored", source, o.Origin, u))
	}
	if o.Illegible {
		f.retain = append(f.retain, o.Origin)
		return
	}
	f.objects = append(f.objects, e)
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
