package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Source is where a kernel comes from: a suite of Debian, and the series wanted,
// such as "6.12"; "": the newest that the suite holds.
type Source struct {
	Suite  string
	Series string
}

// String names the source for people.
func (s Source) String() string {
	return strings.TrimSpace("debian " + s.Suite + " " + s.Series)
}

// Kernel is an unpacked kernel.
type Kernel struct {
	From    string // its source, for people
	Release string // as uname -r says
	Image   string // path of the bootable image
	Modules string // folder of its modules
}

// Series is the kernel's version without what is patched: "6.12".
func (k Kernel) Series() string { return seriesRE.FindString(k.Release) }

var seriesRE = regexp.MustCompile(`^\d+\.\d+`)

// Of Debian's packages.
const (
	flavour = "-cloud-amd64" // of the images: few drivers, and virtio's among them
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// ErrNoKernel says that a suite holds no kernel of the series.
var ErrNoKernel = errors.New("no such kernel in the suite")

// apt runs apt's programs with nothing of this machine's own configuration.
type apt struct {
	dir  string // of lists and packages
	opts []string
}

// CacheDir is where kernels are kept: $XDG_CACHE_HOME/sluice/kernels.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	return filepath.Join(base, "sluice", "kernels"), nil
}

// Fetch resolves the kernel of a source, downloads its packages unless they
// are in the cache folder dir, and unpacks them there. Without network the
// newest cached kernel of the source serves.
func Fetch(ctx context.Context, dir string, src Source) (Kernel, error) {
	a, err := newApt(ctx, filepath.Join(dir, "apt-"+src.Suite), src.Suite)
	if err != nil {
		return Kernel{}, err
	}
	pkg, err := a.resolve(ctx, src)
	if err != nil {
		return Kernel{}, err
	}
	tree := filepath.Join(dir, pkg)
	if _, err := os.Stat(tree); errors.Is(err, os.ErrNotExist) {
		if err := a.download(ctx, pkg, tree); err != nil {
			return Kernel{}, err
		}
	}
	return open(src.String(), tree)
}

// Given is where a kernel comes from whose packages Unpack was given.
const Given = "packages given"

// Unpack unpacks the .deb files of a folder, which together are one kernel of
// any distribution, into tree, which appears whole or not at all.
func Unpack(ctx context.Context, folder, tree string) (Kernel, error) {
	if st, err := os.Stat(folder); err != nil {
		return Kernel{}, fmt.Errorf("read packages: %w", err)
	} else if !st.IsDir() {
		return Kernel{}, fmt.Errorf("read packages: %s is no folder", folder)
	}
	debs, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return Kernel{}, fmt.Errorf("list packages: %w", err)
	}
	if len(debs) == 0 {
		return Kernel{}, fmt.Errorf("read packages: no .deb file in %s", folder)
	}
	if err := unpack(ctx, debs, tree); err != nil {
		return Kernel{}, err
	}
	k, err := open(Given, tree)
	if err != nil {
		return Kernel{}, fmt.Errorf("%w: want the packages of one kernel, with its image and its modules; there are %s", err, baseNames(debs))
	}
	return k, nil
}

func baseNames(paths []string) string {
	var names []string
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return strings.Join(names, ", ")
}

// open looks at an unpacked kernel.
func open(from, tree string) (Kernel, error) {
	k := Kernel{From: from}
	images, _ := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if len(images) == 0 { // linux-binary packages of 6.19 and later
		images, _ = filepath.Glob(filepath.Join(tree, "usr", "lib", "modules", "*", "vmlinuz"))
	}
	if len(images) == 0 {
		return k, errors.New("find kernel: no vmlinuz")
	}
	if len(images) > 1 {
		return k, fmt.Errorf("find kernel: more than one: %s", baseNames(images))
	}
	k.Image = images[0]
	for _, lib := range []string{"lib", "usr/lib"} {
		if dirs, _ := filepath.Glob(filepath.Join(tree, lib, "modules", "*", "kernel")); len(dirs) > 0 {
			k.Modules = filepath.Dir(dirs[0])
			k.Release = filepath.Base(k.Modules)
			return k, nil
		}
	}
	return k, errors.New("find kernel: no modules")
}

// newApt reads the package lists of one suite.
func newApt(ctx context.Context, dir, suite string) (*apt, error) {
	a := &apt{dir: dir}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("create package folder: %w", err)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, fmt.Errorf("find Debian's keys, of its package debian-archive-keyring: %w", err)
	}
	mirror, err := ownMirror(ctx)
	if err != nil {
		return nil, err
	}
	list := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, suite)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "sources.list"), []byte(list), 0o644),
		os.WriteFile(filepath.Join(dir, "status"), nil, 0o644)); err != nil {
		return nil, fmt.Errorf("write package sources: %w", err)
	}
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + filepath.Join(dir, "sources.list"),
		"Dir::Etc::sourceparts=" + filepath.Join(dir, "empty"),
		"Dir::Etc::preferencesparts=" + filepath.Join(dir, "empty"),
		"Dir::State::lists=" + filepath.Join(dir, "lists"),
		"Dir::Cache=" + filepath.Join(dir, "cache"),
		"Dir::State::status=" + filepath.Join(dir, "status"),
		"APT::Architecture=amd64", "APT::Architectures=amd64",
		"APT::Sandbox::User=root", "Acquire::Languages=none",
	} {
		a.opts = append(a.opts, "-o", o)
	}
	if _, err := a.run(ctx, "apt-get", "-q", "update"); err != nil {
		if cached, _ := os.ReadDir(filepath.Join(dir, "lists")); len(cached) < 2 {
			return nil, err
		}
	}
	return a, nil
}

// ownMirror returns the archive of Debian that this machine's own apt uses.
func ownMirror(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its archives: %w", err)
	}
	for uri := range strings.Lines(string(out)) {
		if uri = strings.TrimRight(uri, "/\n"); strings.HasSuffix(uri, "/debian") {
			return uri, nil
		}
	}
	return "", errors.New("find Debian's archive: none among apt's sources ends in /debian")
}

func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, append(slices.Clone(a.opts), args...)...)
	cmd.Dir = a.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

var versionRE = regexp.MustCompile(`^linux-image-(\d+\.\d+)\.\d`)

// resolve names the newest image package of a source.
func (a *apt) resolve(ctx context.Context, src Source) (string, error) {
	names, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return "", err
	}
	best := newest(strings.Fields(names), src.Series)
	if best == "" {
		return "", fmt.Errorf("resolve kernel %s: %w", src, ErrNoKernel)
	}
	return best, nil
}

// newest picks the image package with the highest version of a series.
func newest(names []string, series string) string {
	var best string
	var bestVersion []int
	for _, name := range names {
		m := versionRE.FindStringSubmatch(name)
		if m == nil || !strings.HasSuffix(name, flavour) || series != "" && m[1] != series {
			continue
		}
		if v := numbers(strings.TrimSuffix(name, flavour)); best == "" || slices.Compare(v, bestVersion) > 0 {
			best, bestVersion = name, v
		}
	}
	return best
}

var numberRE = regexp.MustCompile(`\d+`)

// numbers returns all numbers in a version, in order.
func numbers(s string) []int {
	var out []int
	for _, n := range numberRE.FindAllString(s, -1) {
		v, _ := strconv.Atoi(n)
		out = append(out, v)
	}
	return out
}

// download gets an image package and those with the rest of the kernel, and
// unpacks them.
func (a *apt) download(ctx context.Context, pkg, tree string) error {
	deps, err := a.run(ctx, "apt-cache", "depends", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", pkg)
	if err != nil {
		return err
	}
	if err := a.forget(); err != nil { // of a run that was interrupted
		return err
	}
	if _, err := a.run(ctx, "apt-get", append([]string{"-q", "download", pkg}, partsOf(deps)...)...); err != nil {
		return err
	}
	if err := unpack(ctx, a.debs(), tree); err != nil {
		return err
	}
	return a.forget()
}

// debs lists what has been downloaded, and forget removes it.
func (a *apt) debs() []string {
	debs, _ := filepath.Glob(filepath.Join(a.dir, "*.deb"))
	return debs
}

func (a *apt) forget() error {
	for _, deb := range a.debs() {
		if err := os.Remove(deb); err != nil {
			return fmt.Errorf("remove package: %w", err)
		}
	}
	return nil
}

// unpack unpacks packages into tree, which appears whole or not at all.
func unpack(ctx context.Context, debs []string, tree string) error {
	tmp := tree + ".part"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, tmp).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", deb, err, bytes.TrimSpace(out))
		}
	}
	if err := os.Rename(tmp, tree); err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	return nil
}

// partsOf picks the packages of the same kernel out of what apt-cache depends
// prints.
func partsOf(depends string) []string {
	var parts []string
	for line := range strings.Lines(depends) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && (strings.HasPrefix(name, "linux-binary-") || strings.HasPrefix(name, "linux-modules-")) {
			parts = append(parts, name)
		}
	}
	return parts
}
