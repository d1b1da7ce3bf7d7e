package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/source/manifest"
)

// mirror is the agent's copy of the manifests, byte for byte save for files
// with pods that the agent must see otherwise. It also makes a folder out of a
// single file.
type mirror struct {
	dir string
	had map[string]bool // files written so far
}

// changes are what the agent must see otherwise than it is written.
type changes struct {
	// given are the addresses of pods that have none, by key: an annotation
	// tells the agent.
	given map[string][]netip.Addr
	// node is the lab's node: pods of another one come without its name.
	node string
}

// concern reports whether a pod is to be changed.
func (c *changes) concern(s *podSpec) bool { return len(c.given[s.key]) > 0 || s.moved(c.node) }

func newMirror(dir string) (mirror, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return mirror{}, fmt.Errorf("create copy of the manifests: %w", err)
	}
	return mirror{dir: dir, had: map[string]bool{}}, nil
}

// write brings the copy up to date. Each file is replaced as a whole, and only
// if it changed.
func (c *mirror) write(m *manifests, ch *changes) error {
	var errs []error
	has := map[string]bool{}
	for _, f := range m.files {
		has[f.name] = true
		errs = append(errs, c.writeFile(f, ch))
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

func (c *mirror) writeFile(f manifestFile, ch *changes) error {
	data, err := ch.apply(f.data)
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

// apply returns the file with its pods as the agent must see them; where that
// is as they are, the very bytes.
func (c *changes) apply(data []byte) ([]byte, error) {
	var out []byte
	changed := false
	err := eachDocument(data, func(doc []byte) error {
		doc, touched, err := c.document(doc)
		changed = changed || touched
		out = append(append(append(out, "---\n"...), doc...), '\n')
		return err
	})
	if err != nil || !changed {
		return data, err
	}
	return out, nil
}

// document works on JSON; what it doesn't know stays as it is.
func (c *changes) document(doc []byte) ([]byte, bool, error) {
	var fields map[string]json.RawMessage
	var o object
	if err := errors.Join(json.Unmarshal(doc, &fields), json.Unmarshal(doc, &o)); err != nil {
		return nil, false, err
	}
	switch {
	case o.APIVersion != "v1":
		return doc, false, nil
	case strings.HasSuffix(o.Kind, "List"):
		changed := false
		for i, item := range o.Items {
			next, touched, err := c.document(typed(item, o.Kind))
			if err != nil {
				return nil, false, err
			}
			o.Items[i], changed = next, changed || touched
		}
		if !changed {
			return doc, false, nil
		}
		if err := setField(fields, "items", o.Items); err != nil {
			return nil, false, err
		}
	case o.Kind == "Pod":
		changed, err := c.pod(doc, fields)
		if err != nil || !changed {
			return doc, false, err
		}
	default:
		return doc, false, nil
	}
	out, err := json.Marshal(fields)
	return out, true, err
}

// pod changes the fields of a pod.
func (c *changes) pod(doc []byte, fields map[string]json.RawMessage) (bool, error) {
	var p corev1.Pod
	if err := json.Unmarshal(doc, &p); err != nil {
		return false, err
	}
	spec, err := readPod(&p)
	if err != nil || !c.concern(&spec) {
		return false, err
	}
	if addrs := c.given[spec.key]; len(addrs) > 0 {
		list := make([]string, len(addrs))
		for i, a := range addrs {
			list[i] = a.String()
		}
		annotations := map[string]string{}
		maps.Copy(annotations, p.Annotations)
		annotations[manifest.AddressAnnotation] = strings.Join(list, ",")
		if err := editField(fields, "metadata", func(meta map[string]json.RawMessage) error {
			return setField(meta, "annotations", annotations)
		}); err != nil {
			return false, err
		}
	}
	if spec.moved(c.node) {
		if err := editField(fields, "spec", func(spec map[string]json.RawMessage) error {
			delete(spec, "nodeName")
			return nil
		}); err != nil {
			return false, err
		}
	}
	return true, nil
}

func editField(fields map[string]json.RawMessage, name string, edit func(map[string]json.RawMessage) error) error {
	inner := map[string]json.RawMessage{}
	if err := json.Unmarshal(fields[name], &inner); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := edit(inner); err != nil {
		return err
	}
	return setField(fields, name, inner)
}

func setField(fields map[string]json.RawMessage, name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fields[name] = b
	return nil
}
