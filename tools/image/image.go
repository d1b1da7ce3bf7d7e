// Package image builds the container image without a container engine: the
// static binaries and nothing else, for amd64 and arm64, as an OCI layout and as
// archives that docker, containerd and podman load. The same tree makes the same
// image to the bit, wherever and whenever it is built by the same Go: files are
// sorted, times are the commit's, and no path of the machine gets in.
//
// It is a tool of the build; nothing of it is in the product.
package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Options say what to build.
type Options struct {
	Source string   // root of the tree
	Out    string   // folder for the layout, the archives and the SBOMs
	Name   string   // in archives: name:version
	Arches []string // as Go names them
	Stamp  bool     // put the commit into the binaries; needs a git repository
	// Env is added to the environment of go build.
	Env []string
}

// Default returns what a release is built with.
func Default(source, out string) Options {
	return Options{Source: source, Out: out, Name: "sluice", Arches: []string{"amd64", "arm64"}, Stamp: true}
}

// Result is what has been built.
type Result struct {
	Index    string // digest
	Version  string
	Layout   string            // folder
	Archives map[string]string // files, by architecture
}

// program is a binary of the image; its place in it is the root folder.
type program struct{ name, pkg string }

var programs = []program{{"sluice", "./tools/sluice"}, {"sluice-cni", "./tools/sluice-cni"}}

// Build builds the binaries and packs them.
func Build(o Options) (_ *Result, err error) {
	work, err := os.MkdirTemp("", "sluice-image-")
	if err != nil {
		return nil, fmt.Errorf("create work folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	var parts []part
	for _, arch := range o.Arches {
		p, err := compile(o, arch, filepath.Join(work, arch))
		if err != nil {
			return nil, err
		}
		parts = append(parts, *p)
	}
	return pack(o, parts)
}

// part is the image of one architecture before it is packed.
type part struct {
	arch  string
	about about
	files []file
	sbom  []byte
}

// about is what the image says of itself.
type about struct {
	version, revision string
	created           time.Time
}

// annotations and labels, by the OCI image specification's keys.
func (a about) annotations() map[string]string {
	m := map[string]string{
		"org.opencontainers.image.title":         "sluice",
		"org.opencontainers.image.description":   "Kubernetes NetworkPolicy on AF_XDP: agent, CNI plugin and tools",
		"org.opencontainers.image.url":           "https://github.com/sluice-net/sluice",
		"org.opencontainers.image.source":        "https://github.com/sluice-net/sluice",
		"org.opencontainers.image.documentation": "https://github.com/sluice-net/sluice/tree/main/deploy",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       a.version,
		"org.opencontainers.image.created":       a.created.Format(time.RFC3339),
	}
	if a.revision != "" {
		m["org.opencontainers.image.revision"] = a.revision
	}
	return m
}

// pack makes the layout and the archives.
func pack(o Options, parts []part) (*Result, error) {
	r := &Result{Layout: filepath.Join(o.Out, "image"), Archives: map[string]string{}, Version: parts[0].about.version}
	l, err := newLayout(r.Layout)
	if err != nil {
		return nil, err
	}
	index := index{Versioned: schema2, MediaType: typeIndex, Annotations: parts[0].about.annotations()}
	for _, p := range parts {
		desc, blobs, err := l.image(p)
		if err != nil {
			return nil, err
		}
		index.Manifests = append(index.Manifests, desc)
		file := filepath.Join(o.Out, fmt.Sprintf("%s-image-%s.tar", o.Name, p.arch))
		if err := l.archive(file, o.Name+":"+p.about.version, desc, blobs, p.about.created); err != nil {
			return nil, err
		}
		r.Archives[p.arch] = file
		sbom := filepath.Join(o.Out, fmt.Sprintf("%s-%s.spdx.json", o.Name, p.arch))
		if err := os.WriteFile(sbom, p.sbom, 0o644); err != nil {
			return nil, fmt.Errorf("write SBOM: %w", err)
		}
	}
	desc, err := l.json(typeIndex, index)
	if err != nil {
		return nil, err
	}
	r.Index = desc.Digest
	return r, l.finish(desc, r.Version)
}
