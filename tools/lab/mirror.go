package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/source/manifest"
)

// mirror is the agent's copy of the manifests, byte for byte save for files
// with pods that have no addresses: those pods get an annotation with the ones
// that the lab gave them. It also makes a folder out of a single file.
type mirror struct {
	dir string
	had map[string]bool // files written so far
}

func newMirror(dir string) (mirror, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return mirror{}, fmt.Errorf("create copy of the manifests: %w", err)
	}
	return mirror{dir: dir, had: map[string]bool{}}, nil
}

// write brings the copy up to date. Each file is replaced as a whole, and only
// if it changed.
func (c *mirror) write(m *manifests, given map[string][]netip.Addr) error {
	var errs []error
	has := map[string]bool{}
	for _, f := range m.files {
		has[f.name] = true
		errs = append(errs, c.writeFile(f, given))
	}
	for name := range c.had {
		if !has[name] {
			errs = append(errs, os.Remove(filepath.Join(c.dir, name)))
		}
	}
	c.had = has
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("copy manifests: %w", err)
	}
	return nil
}

func (c *mirror) writeFile(f manifestFile, given map[string][]netip.Addr) error {
	data, err := annotate(f.data, given)
	if err != nil {
		data = f.data // the agent says what is wrong with it
	}
	path := filepath.Join(c.dir, f.name)
	old, err := os.ReadFile(path)
	if err == nil && slices.Equal(old, data) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return replaceFile(path, data)
}

// annotate returns the file with the addresses of its pods that were given
// some; without such pods, the very bytes.
func annotate(data []byte, given map[string][]netip.Addr) ([]byte, error) {
	var out []byte
	changed := false
	err := eachDocument(data, func(doc []byte) error {
		doc, touched, err := annotateDocument(doc, given)
		changed = changed || touched
		out = append(append(append(out, "---\n"...), doc...), '\n')
		return err
	})
	if err != nil || !changed {
		return data, err
	}
	return out, nil
}

// annotateDocument works on JSON; what it doesn't know stays as it is.
func annotateDocument(doc []byte, given map[string][]netip.Addr) ([]byte, bool, error) {
	var fields map[string]json.RawMessage
	var o object
	if err := errors.Join(json.Unmarshal(doc, &fields), json.Unmarshal(doc, &o)); err != nil {
		return nil, false, err
	}
	switch {
	case o.Kind == "List" || o.Kind == "PodList":
		changed := false
		for i, item := range o.Items {
			next, touched, err := annotateDocument(typed(item, o.Kind), given)
			if err != nil {
				return nil, false, err
			}
			o.Items[i], changed = next, changed || touched
		}
		if !changed {
			return doc, false, nil
		}
		items, err := json.Marshal(o.Items)
		if err != nil {
			return nil, false, err
		}
		fields["items"] = items
	case o.Kind == "Pod" && o.APIVersion == "v1":
		var p corev1.Pod
		if err := json.Unmarshal(doc, &p); err != nil {
			return nil, false, err
		}
		spec, err := readPod(&p)
		if err != nil || len(given[spec.key]) == 0 {
			return doc, false, err
		}
		if fields["metadata"], err = annotateMeta(fields["metadata"], p.Annotations, given[spec.key]); err != nil {
			return nil, false, err
		}
	default:
		return doc, false, nil
	}
	out, err := json.Marshal(fields)
	return out, true, err
}

func annotateMeta(meta json.RawMessage, have map[string]string, addrs []netip.Addr) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(meta, &fields); err != nil {
		return nil, err
	}
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = a.String()
	}
	annotations := map[string]string{}
	for k, v := range have {
		annotations[k] = v
	}
	annotations[manifest.AddressAnnotation] = strings.Join(list, ",")
	b, err := json.Marshal(annotations)
	if err != nil {
		return nil, err
	}
	fields["annotations"] = b
	return json.Marshal(fields)
}
