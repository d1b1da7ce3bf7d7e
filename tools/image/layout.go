package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// layout is a folder by the OCI image layout specification.
type layout struct{ dir string }

// newLayout makes an empty layout in place of what was there.
func newLayout(dir string) (*layout, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("remove earlier layout: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, fmt.Errorf("create layout: %w", err)
	}
	return &layout{dir}, nil
}

// blob stores content under its digest.
func (l *layout) blob(mediaType string, data []byte) (descriptor, error) {
	sum := sha256.Sum256(data)
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}
	if err := os.WriteFile(filepath.Join(l.dir, d.path()), data, 0o644); err != nil {
		return d, fmt.Errorf("write blob: %w", err)
	}
	return d, nil
}

func (l *layout) json(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, fmt.Errorf("encode %s: %w", mediaType, err)
	}
	return l.blob(mediaType, data)
}

// image stores the manifest of one architecture with its config and its layer.
func (l *layout) image(p part) (desc descriptor, blobs []descriptor, err error) {
	raw, zipped, err := layer(p.files, p.about.created)
	if err != nil {
		return desc, nil, err
	}
	content, err := l.blob(typeLayer, zipped)
	if err != nil {
		return desc, nil, err
	}
	diff := sha256.Sum256(raw)
	cfg := config{
		Created: p.about.created, Architecture: p.arch, OS: "linux",
		Config: runConfig{
			User: "0:0", Env: []string{"PATH=/"}, Entrypoint: []string{"/sluice"}, WorkingDir: "/",
			Labels: p.about.annotations(),
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{"sha256:" + hex.EncodeToString(diff[:])}},
		History: []history{{Created: p.about.created, CreatedBy: "tools/image"}},
	}
	platform := &platform{Architecture: p.arch, OS: "linux"}
	if p.arch == "arm64" {
		cfg.Variant, platform.Variant = "v8", "v8"
	}
	conf, err := l.json(typeConfig, cfg)
	if err != nil {
		return desc, nil, err
	}
	desc, err = l.json(typeManifest, manifest{Versioned: schema2, MediaType: typeManifest,
		Config: conf, Layers: []descriptor{content}, Annotations: p.about.annotations()})
	desc.Platform = platform
	return desc, []descriptor{conf, content}, err
}

// top is the layout's index.json, which names an image: by its tag, and by its
// full name where there is one.
func top(desc descriptor, tag, name string) ([]byte, error) {
	desc.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	if name != "" {
		desc.Annotations["io.containerd.image.name"] = name
	}
	return json.Marshal(index{Versioned: schema2, MediaType: typeIndex, Manifests: []descriptor{desc}})
}

const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// finish makes the layout valid: until then it has no entrance.
func (l *layout) finish(desc descriptor, name string) error {
	entrance, err := top(desc, name, "")
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(layoutVersion), 0o644),
		os.WriteFile(filepath.Join(l.dir, "index.json"), entrance, 0o644))
}

// archive writes one architecture as a file that is both a layout, for
// containerd and podman, and what "docker save" writes.
func (l *layout) archive(file, name string, desc descriptor, blobs []descriptor, when time.Time) error {
	_, version, _ := strings.Cut(name, ":")
	// containerd takes a name as it stands, so it must be the one that a pod's
	// short name is short for.
	entrance, err := top(desc, version, "docker.io/library/"+name)
	if err != nil {
		return err
	}
	saved, err := json.Marshal([]dockerManifest{{Config: blobs[0].path(), RepoTags: []string{name}, Layers: []string{blobs[1].path()}}})
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	put := func(name string, data []byte) {
		if err == nil {
			err = writeFile(w, name, 0o644, when, data)
		}
	}
	put("oci-layout", []byte(layoutVersion))
	put("index.json", entrance)
	put("manifest.json", saved)
	for _, d := range append([]descriptor{desc}, blobs...) {
		data, readErr := os.ReadFile(filepath.Join(l.dir, d.path()))
		err = errors.Join(err, readErr)
		put(d.path(), data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write archive %s: %w", file, err)
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
