package deploytest_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// unpack makes a root file system of the image that SLUICE_IMAGE names, an OCI
// layout, for this machine's architecture.
func unpack(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("SLUICE_IMAGE")
	_, err := os.Stat(filepath.Join(dir, "oci-layout"))
	needs(tb, "image at SLUICE_IMAGE", dir != "" && err == nil)
	type desc struct {
		Digest   string `json:"digest"`
		Platform struct {
			Architecture string `json:"architecture"`
		} `json:"platform"`
	}
	var doc struct {
		Manifests []desc `json:"manifests"`
		Layers    []desc `json:"layers"`
	}
	read := func(file string) {
		doc.Manifests, doc.Layers = nil, nil
		data, err := os.ReadFile(filepath.Join(dir, file))
		must(tb, err)
		must(tb, json.Unmarshal(data, &doc))
	}
	blob := func(d desc) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	read("index.json")
	read(blob(doc.Manifests[0]))
	var found *desc
	for i, m := range doc.Manifests {
		if m.Platform.Architecture == runtime.GOARCH {
			found = &doc.Manifests[i]
		}
	}
	if found == nil {
		tb.Fatalf("image is not for %s: %+v", runtime.GOARCH, doc.Manifests)
	}
	read(blob(*found))
	root := tb.TempDir()
	must(tb, os.Chmod(root, 0o755))
	for _, l := range doc.Layers {
		untar(tb, filepath.Join(dir, blob(l)), root)
	}
	return root
}

func untar(tb testing.TB, file, root string) {
	tb.Helper()
	f, err := os.Open(file)
	must(tb, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(tb, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(tb, err)
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(h.Name) {
			tb.Fatalf("layer holds %q of type %c", h.Name, h.Typeflag)
		}
		if h.Uid != 0 || h.Gid != 0 {
			tb.Errorf("%s belongs to %d:%d", h.Name, h.Uid, h.Gid)
		}
		data, err := io.ReadAll(r)
		must(tb, err)
		must(tb, os.WriteFile(filepath.Join(root, h.Name), data, h.FileInfo().Mode()))
	}
}
