package image_test

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/image"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// full skips where make test-deploy has not been asked for: the product is built
// twice over.
func full(t *testing.T) {
	t.Helper()
	if os.Getenv("SLUICE_IMAGE") == "" {
		t.Skip("builds everything: run make test-deploy")
	}
}

// copyTree copies what git knows of the tree to a folder of another name.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	cmd.Dir = from
	list, err := cmd.Output()
	must(t, err)
	to := filepath.Join(t.TempDir(), "some", "where", "else")
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) || err != nil && isDir(filepath.Join(from, name)) {
			continue
		}
		must(t, err)
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(to, name), data, 0o644))
	}
	return to
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// TestReproducible builds the image here, and from a copy of the tree elsewhere:
// both are the same to the bit.
func TestReproducible(t *testing.T) {
	full(t)
	var digests []string
	var archives [][]byte
	for _, source := range []string{"../..", copyTree(t, "../..")} {
		o := image.Default(source, t.TempDir())
		o.Arches, o.Stamp = []string{runtime.GOARCH}, false
		r, err := image.Build(o)
		must(t, err)
		data, err := os.ReadFile(r.Archives[runtime.GOARCH])
		must(t, err)
		digests, archives = append(digests, r.Index), append(archives, data)
	}
	if digests[0] != digests[1] {
		t.Errorf("digests differ: %v", digests)
	}
	if string(archives[0]) != string(archives[1]) {
		t.Error("archives differ")
	}
}

// TestColdCache builds a binary, a small one, with a cache that holds nothing: what it
// is made of doesn't depend on what was built before.
func TestColdCache(t *testing.T) {
	full(t)
	var sums []string
	for _, cache := range []string{"", "GOCACHE=" + t.TempDir()} {
		out := filepath.Join(t.TempDir(), "cmd")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./tools/image/cmd")
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if cache != "" {
			cmd.Env = append(cmd.Env, cache)
		}
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		data, err := os.ReadFile(out)
		must(t, err)
		sums = append(sums, string(data))
	}
	if sums[0] != sums[1] {
		t.Error("binaries differ")
	}
}

// built returns the image that make image made.
func built(t *testing.T) string {
	t.Helper()
	full(t)
	return os.Getenv("SLUICE_IMAGE")
}

// TestArchive reads the archives as docker does, by their manifest.json, and as
// containerd does, by their index.json.
func TestArchive(t *testing.T) {
	dir := filepath.Dir(built(t))
	for _, arch := range []string{"amd64", "arm64"} {
		f, err := os.Open(filepath.Join(dir, "sluice-image-"+arch+".tar"))
		must(t, err)
		defer f.Close()
		files := map[string][]byte{}
		for r := tar.NewReader(f); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			files[h.Name], err = io.ReadAll(r)
			must(t, err)
		}
		var list []struct {
			Config   string
			RepoTags []string
			Layers   []string
		}
		must(t, json.Unmarshal(files["manifest.json"], &list))
		if len(list) != 1 || len(list[0].RepoTags) != 1 || len(list[0].Layers) != 1 {
			t.Fatalf("%s: %+v", arch, list)
		}
		var cfg struct {
			Architecture string `json:"architecture"`
			Config       struct{ Labels map[string]string }
		}
		must(t, json.Unmarshal(files[list[0].Config], &cfg))
		_, tag, _ := strings.Cut(list[0].RepoTags[0], ":")
		if cfg.Architecture != arch || cfg.Config.Labels["org.opencontainers.image.version"] != tag {
			t.Errorf("%s: config %+v, tag %s", arch, cfg, tag)
		}
		if len(files[list[0].Layers[0]]) == 0 {
			t.Errorf("%s: no layer", arch)
		}
		// containerd reads the index, and names the image by it: as the pods do,
		// whose short names the runtime interface makes long.
		var top struct {
			Manifests []struct{ Annotations map[string]string }
		}
		must(t, json.Unmarshal(files["index.json"], &top))
		if want := "docker.io/library/" + list[0].RepoTags[0]; len(top.Manifests) != 1 || top.Manifests[0].Annotations["io.containerd.image.name"] != want {
			t.Errorf("%s: containerd would call it %v, not %s", arch, top.Manifests, want)
		}
	}
}

// TestBill looks that the SBOM names every module that go.mod has for the
// binaries' sake, at its version.
func TestBill(t *testing.T) {
	dir := filepath.Dir(built(t))
	var doc struct {
		SPDXID, SPDXVersion string
		Packages            []struct {
			Name, SPDXID, VersionInfo string
		}
		Relationships []struct{ SPDXElementID, RelationshipType, RelatedSPDXElement string }
	}
	data, err := os.ReadFile(filepath.Join(dir, "sluice-amd64.spdx.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &doc))
	version := map[string]string{}
	ids := map[string]bool{doc.SPDXID: true}
	for _, p := range doc.Packages {
		version[p.Name] = p.VersionInfo
		if ids[p.SPDXID] {
			t.Errorf("two elements are %s", p.SPDXID)
		}
		ids[p.SPDXID] = true
	}
	for _, r := range doc.Relationships {
		if !ids[r.SPDXElementID] || !ids[r.RelatedSPDXElement] {
			t.Errorf("relationship of what isn't there: %+v", r)
		}
	}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "./tools/sluice", "./tools/sluice-cni")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	out, err := cmd.Output()
	must(t, err)
	seen := 0
	for line := range strings.Lines(string(out)) {
		name, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || v == "" {
			continue
		}
		seen++
		if version[name] != v {
			t.Errorf("%s: %q in the SBOM, %q in the build", name, version[name], v)
		}
	}
	if seen < 20 {
		t.Errorf("saw %d modules", seen)
	}
}
