package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/source/manifest"
)

// manifests is a file or a folder of them at one moment.
type manifests struct {
	files []manifestFile // sorted by name
	sum   string
}

type manifestFile struct {
	name string // relative to the folder
	data []byte
}

// readManifests reads a file, or the YAML and JSON files of a folder and the
// folders below it. Hidden names are left out.
func readManifests(path string) (*manifests, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	m := &manifests{}
	if !info.IsDir() {
		if err := m.add(path, filepath.Base(path)); err != nil {
			return nil, err
		}
		m.seal()
		return m, nil
	}
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	err = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if at != root && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() || !isManifest(d.Name()) {
			return nil
		}
		name, err := filepath.Rel(root, at)
		if err != nil {
			return err
		}
		return m.add(at, name)
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	m.seal()
	return m, nil
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func (m *manifests) add(path, name string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since it was listed
	}
	if err != nil {
		return err
	}
	m.files = append(m.files, manifestFile{name, data})
	return nil
}

func (m *manifests) seal() {
	slices.SortFunc(m.files, func(a, b manifestFile) int { return strings.Compare(a.name, b.name) })
	h := sha256.New()
	for _, f := range m.files {
		fmt.Fprintf(h, "%s\x00%d\x00", f.name, len(f.data))
		h.Write(f.data)
	}
	m.sum = hex.EncodeToString(h.Sum(nil))
}

// object is enough of any object to tell pods and lists of them.
type object struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

// cluster is what the lab builds a node from.
type cluster struct {
	pods  []podSpec // sorted by key; those that run
	nodes []nodeSpec
	wrong bool // one that is there can't be built as it is written
}

// cluster reads the pods that run, for those that have finished have no
// network, and the nodes. Documents that can't be read are reported, and what
// the others say is returned.
func (m *manifests) cluster() (*cluster, error) {
	c := &cluster{}
	var errs []error
	at := map[string]string{}
	for _, f := range m.files {
		err := eachDocument(f.data, func(doc []byte) error {
			return eachObject(doc, func(kind string, doc []byte) error {
				var err error
				switch kind {
				case "Pod":
					err = c.addPod(doc, f.name, at)
				case "Node":
					err = c.addNode(doc)
				}
				c.wrong = c.wrong || err != nil
				return err
			})
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	slices.SortFunc(c.pods, func(a, b podSpec) int { return strings.Compare(a.key, b.key) })
	return c, errors.Join(errs...)
}

// addPod adds a pod unless it has finished; at says where each pod was found.
func (c *cluster) addPod(doc []byte, file string, at map[string]string) error {
	var p corev1.Pod
	if err := json.Unmarshal(doc, &p); err != nil {
		return fmt.Errorf("decode pod: %w", err)
	}
	spec, err := readPod(&p)
	if err != nil {
		return err
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	if first := at[spec.key]; first != "" {
		return fmt.Errorf("pod %s: also in %s", spec.key, first)
	}
	at[spec.key] = file
	c.pods = append(c.pods, spec)
	return nil
}

func (c *cluster) addNode(doc []byte) error {
	var n corev1.Node
	if err := json.Unmarshal(doc, &n); err != nil {
		return fmt.Errorf("decode node: %w", err)
	}
	spec, err := readNode(&n)
	if err == nil {
		c.nodes = append(c.nodes, spec)
	}
	return err
}

// eachDocument visits the documents of a YAML or JSON file as JSON. It goes on
// after an error.
func eachDocument(data []byte, visit func(doc []byte) error) error {
	var errs []error
	for _, d := range manifest.Documents(data) {
		err := d.Err
		if err == nil {
			err = visit(d.JSON)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("document %d: %w", d.Number, err))
		}
	}
	return errors.Join(errs...)
}

// eachObject visits the core objects of a document, those in lists included.
func eachObject(doc []byte, visit func(kind string, doc []byte) error) error {
	var o object
	if err := json.Unmarshal(doc, &o); err != nil {
		return err
	}
	switch {
	case o.APIVersion != "v1":
		return nil
	case strings.HasSuffix(o.Kind, "List"):
		var errs []error
		for _, item := range o.Items {
			errs = append(errs, eachObject(typed(item, o.Kind), visit))
		}
		return errors.Join(errs...)
	}
	return visit(o.Kind, doc)
}

// typed gives the items of a list of one kind the type that they are listed
// without.
func typed(item json.RawMessage, listKind string) []byte {
	kind := strings.TrimSuffix(listKind, "List")
	if kind == "" {
		return item
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(item, &fields) != nil {
		return item
	}
	fields["apiVersion"], fields["kind"] = json.RawMessage(`"v1"`), json.RawMessage(`"`+kind+`"`)
	out, err := json.Marshal(fields)
	if err != nil {
		return item
	}
	return out
}
