package oracle_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestImage reads the image that SLUICE_IMAGE names with go-containerregistry,
// which checks digests, sizes and media types, and compares the archives with it.
func TestImage(t *testing.T) {
	dir := os.Getenv("SLUICE_IMAGE")
	if dir == "" {
		t.Skip("needs an image: run make test-deploy")
	}
	top, err := layout.ImageIndexFromPath(dir)
	must(t, err)
	m, err := top.IndexManifest()
	must(t, err)
	if len(m.Manifests) != 1 {
		t.Fatalf("layout has %d images", len(m.Manifests))
	}
	index, err := top.ImageIndex(m.Manifests[0].Digest)
	must(t, err)
	must(t, validate.Index(index))
	im, err := index.IndexManifest()
	must(t, err)
	var arches []string
	for _, d := range im.Manifests {
		arch := d.Platform.Architecture
		arches = append(arches, arch)
		img, err := index.Image(d.Digest)
		must(t, err)
		must(t, validate.Image(img))
		cfg, err := img.ConfigFile()
		must(t, err)
		for _, label := range []string{"title", "description", "source", "licenses", "version", "created", "revision"} {
			key := "org.opencontainers.image." + label
			if cfg.Config.Labels[key] == "" || cfg.Config.Labels[key] != im.Annotations[key] {
				t.Errorf("%s: label %s is %q, annotation %q", arch, key, cfg.Config.Labels[key], im.Annotations[key])
			}
		}
		if cfg.Architecture != arch || cfg.OS != "linux" || !slices.Equal(cfg.Config.Entrypoint, []string{"/sluice"}) {
			t.Errorf("%s: %+v", arch, cfg)
		}
		archive, err := tarball.ImageFromPath(filepath.Join(dir, "..", "sluice-image-"+arch+".tar"), nil)
		must(t, err)
		saved, err := archive.ConfigName()
		must(t, err)
		want, err := img.ConfigName()
		must(t, err)
		if saved != want {
			t.Errorf("%s: archive has config %v, layout %v", arch, saved, want)
		}
		must(t, validate.Image(archive))
	}
	if slices.Sort(arches); !slices.Equal(arches, []string{"amd64", "arm64"}) {
		t.Errorf("architectures %v", arches)
	}
	if v := im.Annotations["org.opencontainers.image.version"]; strings.Contains(v, "+") || v == "" {
		t.Errorf("version %q among %v", v, slices.Sorted(maps.Keys(im.Annotations)))
	}
}
