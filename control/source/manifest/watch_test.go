package manifest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
)

// follow runs a source until the test ends.
func follow(t *testing.T, src *manifest.Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("run: %v", err)
		}
	})
}

// until waits for the digest that a path has now to be in force.
func until(t *testing.T, src *manifest.Source, path string) {
	t.Helper()
	want, err := manifest.Digest(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if src.State().Digest == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: what it holds was never loaded", path)
}

func TestFollowFolder(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": pod("a", "p")})
	src, st := open(t, dir)
	follow(t, src)

	write(t, filepath.Join(dir, "b.yaml"), pod("a", "q"))
	until(t, src, dir)
	expect(t, st, "pod a/p", "pod a/q")

	write(t, filepath.Join(dir, "new", "deep", "c.yaml"), pod("a", "r"))
	until(t, src, dir)
	expect(t, st, "pod a/p", "pod a/q", "pod a/r")

	write(t, filepath.Join(dir, "new", "deep", "c.yaml"), pod("a", "s"))
	until(t, src, dir)
	expect(t, st, "pod a/p", "pod a/q", "pod a/s")

	if err := os.Remove(filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	until(t, src, dir)
	expect(t, st, "pod a/q", "pod a/s")

	// The whole folder is replaced.
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "z.yaml"), pod("a", "z"))
	until(t, src, dir)
	expect(t, st, "pod a/z")
	write(t, filepath.Join(dir, "z.yaml"), pod("b", "z"))
	until(t, src, dir)
	expect(t, st, "pod b/z")
}

// TestFollowConfigMap swaps the link to all contents, as the kubelet does.
func TestFollowConfigMap(t *testing.T) {
	dir := folder(t, map[string]string{"..v1/f.yaml": pod("a", "one")})
	link := func(target, name string) {
		t.Helper()
		tmp := filepath.Join(dir, "..tmp")
		if err := os.Symlink(target, tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..v1", "..data")
	link("..data/f.yaml", "f.yaml")
	for _, path := range []string{dir, filepath.Join(dir, "f.yaml")} {
		src, st := open(t, path)
		expect(t, st, "pod a/one")
		follow(t, src)
		write(t, filepath.Join(dir, "..v2", "f.yaml"), pod("a", "two"))
		link("..v2", "..data")
		until(t, src, path)
		expect(t, st, "pod a/two")
		link("..v1", "..data")
		until(t, src, path)
		expect(t, st, "pod a/one")
	}
}

func TestFollowFile(t *testing.T) {
	path := filepath.Join(folder(t, map[string]string{"f.yaml": pod("a", "one")}), "f.yaml")
	st := store.New()
	src, err := manifest.Open(path, st)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, pod("a", "two")) // before the watch stands
	follow(t, src)
	until(t, src, path)
	expect(t, st, "pod a/two")

	// Editors write a new file and move it into place.
	write(t, path+".new", pod("a", "three"))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	until(t, src, path)
	expect(t, st, "pod a/three")
}
