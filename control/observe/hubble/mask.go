package hubble

import (
	"fmt"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// mask is which fields of a flow a client wants. A nil mask wants all.
type mask struct{ fields []maskField }

type maskField struct {
	fd  protoreflect.FieldDescriptor
	sub []maskField // of a message, or nil for all of it
}

// newMask compiles the paths of a field mask.
func newMask(paths []string) (*mask, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	fm := &fieldmaskpb.FieldMask{Paths: paths}
	if !fm.IsValid(&flowpb.Flow{}) {
		return nil, fmt.Errorf("field mask %q: not all of it are fields of a flow", paths)
	}
	fm.Normalize() // sorted, and without paths below others
	m := &mask{}
	for _, p := range fm.Paths {
		m.fields = addPath(m.fields, (&flowpb.Flow{}).ProtoReflect().Descriptor(), p)
	}
	return m, nil
}

func addPath(fields []maskField, d protoreflect.MessageDescriptor, path string) []maskField {
	name, rest := path, ""
	for i := range path {
		if path[i] == '.' {
			name, rest = path[:i], path[i+1:]
			break
		}
	}
	fd := d.Fields().ByName(protoreflect.Name(name))
	i := 0
	for i < len(fields) && fields[i].fd != fd {
		i++
	}
	if i == len(fields) {
		fields = append(fields, maskField{fd: fd})
	}
	if rest != "" {
		fields[i].sub = addPath(fields[i].sub, fd.Message(), rest)
	}
	return fields
}

// apply returns a flow with the wanted fields of f, which it shares.
func (m *mask) apply(f *flowpb.Flow) *flowpb.Flow {
	if m == nil {
		return f
	}
	out := &flowpb.Flow{}
	pick(out.ProtoReflect(), f.ProtoReflect(), m.fields)
	return out
}

func pick(dst, src protoreflect.Message, fields []maskField) {
	for _, f := range fields {
		if !src.Has(f.fd) {
			continue
		}
		if f.sub == nil {
			dst.Set(f.fd, src.Get(f.fd))
			continue
		}
		pick(dst.Mutable(f.fd).Message(), src.Get(f.fd).Message(), f.sub)
	}
}
