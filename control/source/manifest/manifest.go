// Package manifest reads the cluster's state from a file or folder of
// manifests, as kubectl would apply them, into the store, and follows changes.
// It is the sole user of YAML.
//
// A load is atomic: the store sees all of it in one transaction. What can't be
// read never opens anything: a document that doesn't parse leaves in force
// what its file said last, and a policy that isn't valid isolates what it
// selects. All that is not in force as written is reported.
package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
)

// AddressAnnotation on a Pod or Node gives it addresses, comma-separated,
// beside those of its status.
const AddressAnnotation = object.AddressAnnotation

// State is what the last load found.
type State struct {
	Digest     string // of the contents that are in force, as Digest returns it
	Files      int
	Objects    int
	Rejections []policy.Rejection
	Notes      []string // skipped kinds, unknown fields
}

// Source keeps a store in step with a path.
type Source struct {
	path  string
	store *store.Store

	mu    sync.Mutex // guards what follows, and loading
	state State
	files map[string]*file // by name relative to path
	owned map[policy.Origin]owner
}

// owner is where an object that is in force came from.
type owner struct {
	file  string
	value any
	valid bool // a version of it that is valid is in force
}

// Open loads path into st. A path that can't be read or holds no manifest is
// an error here; later it leaves what is in force.
func Open(path string, st *store.Store) (*Source, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	s := &Source{path: path, store: st, files: map[string]*file{}, owned: map[policy.Origin]owner{}}
	contents, err := readAll(path)
	if err != nil {
		return nil, err
	}
	if len(contents) == 0 {
		return nil, fmt.Errorf("read manifests from %s: no *.yaml, *.yml or *.json file in it", path)
	}
	for _, c := range contents {
		if c.err != nil {
			return nil, fmt.Errorf("read manifests from %s: %w", path, c.err)
		}
	}
	s.load(contents)
	return s, nil
}

// State returns what the last load found.
func (s *Source) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Path returns the file or folder that is followed.
func (s *Source) Path() string { return s.path }

// Whence returns the file that an object in force came from. Files have no
// versions.
func (s *Source) Whence(o policy.Origin) (source, version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.owned[o].file, ""
}

// Reload reads path again and reports whether its contents have changed.
func (s *Source) Reload() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	contents, err := readAll(s.path)
	if err != nil {
		// Said once, however often it is tried.
		r := policy.Rejection{Source: s.path, Reason: err.Error(), Effect: "all that it last said stays in force"}
		if slices.Contains(s.state.Rejections, r) {
			return false, err
		}
		s.state.Rejections = append(slices.Clone(s.state.Rejections), r)
		s.state.Digest = ""
		return true, err
	}
	if s.state.Digest == digest(contents) {
		return false, nil
	}
	s.load(contents)
	return true, nil
}

// Digest returns the SHA-256, in hex, over the names and contents of what a
// Source at path would load. A Source whose State has this Digest has put
// these contents in force.
func Digest(path string) (string, error) {
	contents, err := readAll(path)
	if err != nil {
		return "", err
	}
	return digest(contents), nil
}

// content is one file as read.
type content struct {
	name string // relative to the path
	data []byte
	err  error
}

func digest(contents []content) string {
	h := sha256.New()
	for _, c := range contents {
		fmt.Fprintf(h, "%d %s %d %v\n", len(c.name), c.name, len(c.data), c.err)
		h.Write(c.data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readAll reads path, or if it is a folder all manifests below it, sorted by
// name. Hidden entries are left out: in a mounted ConfigMap they are the
// versions that the visible links lead to.
func readAll(path string) ([]content, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if !info.IsDir() {
		data, err := os.ReadFile(path) // which may be a pipe, as in -f <(kubectl get …)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		return []content{{name: filepath.Base(path), data: data}}, nil
	}
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var out []content
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p != root && errors.Is(err, fs.ErrNotExist) {
				return nil // gone since it was listed
			}
			return err
		}
		if p != root && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() || !isManifest(d.Name()) {
			return nil
		}
		data, err := readFile(p)
		if errors.Is(err, fs.ErrNotExist) && d.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		name, _ := filepath.Rel(root, p)
		out = append(out, content{name: name, data: data, err: err})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	slices.SortFunc(out, func(a, b content) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// readFile reads a file of a folder: a pipe would wait for who writes it.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
