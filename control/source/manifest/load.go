package manifest

import (
	"crypto/sha256"
	"fmt"
	"reflect"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
)

// load puts contents in force. Files that have not changed are not decoded
// again.
func (s *Source) load(contents []content) {
	next := State{Digest: digest(contents), Files: len(contents)}
	files := make(map[string]*file, len(contents))
	want := map[policy.Origin]owner{}
	keep := map[policy.Origin]bool{}
	stay := map[string]bool{} // rejected, with an earlier version in force
	var skipped []skip
	for _, c := range contents {
		f := s.decode(c)
		files[c.name] = f
		next.Rejections = append(next.Rejections, f.rejections...)
		next.Notes = append(next.Notes, f.notes...)
		skipped = append(skipped, f.skipped...)
		first := map[policy.Origin]string{}
		for _, o := range f.objects {
			if prior, ok := want[o.origin]; ok {
				where := first[o.origin]
				if where == "" {
					where = prior.file
				}
				r := policy.Rejection{
					Object: o.origin.String(), Source: o.source, Field: "metadata.name",
					Reason: fmt.Sprintf("Duplicate value: %q", o.origin.Name),
					Effect: "the one in " + where + " is in force",
				}
				if p := o.closed(); p != nil && !reflect.DeepEqual(o.value, prior.value) {
					want[p.Origin] = owner{file: c.name, value: p}
					r.Effect += ", and what this one would close is closed"
					next.rename(r, p.Origin.String())
					r.Object = p.Origin.String()
				}
				next.Rejections = append(next.Rejections, r)
				continue
			}
			first[o.origin] = o.source
			p, isPolicy := o.value.(*policy.Policy)
			valid := !isPolicy || !p.Rejected || s.owned[o.origin].valid
			want[o.origin] = owner{file: c.name, value: o.value, valid: valid}
			if valid && isPolicy && p.Rejected {
				stay[o.origin.String()] = true
			}
		}
		for _, o := range f.retain {
			keep[o] = true
		}
	}
	for i := range next.Rejections {
		if r := &next.Rejections[i]; stay[r.Object] {
			r.Effect += "; the rules of its last valid version stay in force as well"
		}
	}
	next.Objects = len(want)
	next.Notes = append(next.Notes, describe(skipped)...)
	for o, was := range s.owned {
		f := files[was.file]
		if _, ok := want[o]; !ok && (keep[o] || f != nil && f.broken) {
			want[o] = was
		}
	}
	s.store.Update(func(tx *store.Tx) {
		for o := range s.owned {
			if _, ok := want[o]; !ok {
				object.Remove(tx, o)
			}
		}
		for o, w := range want {
			if s.owned[o].value != w.value || w.value == nil {
				object.Put(tx, w.value)
			}
		}
	})
	s.files, s.owned, s.state = files, want, next
}

// rename gives what was said of the object that r is about another name.
func (s *State) rename(r policy.Rejection, object string) {
	for i := range s.Rejections {
		if x := &s.Rejections[i]; x.Source == r.Source && x.Object == r.Object {
			x.Object = object
		}
	}
}

func (s *Source) decode(c content) *file {
	if c.err != nil {
		f := &file{}
		f.fail(c.name, c.err)
		return f
	}
	sum := sha256.Sum256(c.data)
	if f := s.files[c.name]; f != nil && f.sum == sum {
		return f
	}
	f := decodeFile(c.name, c.data)
	f.sum = sum
	return f
}
