package vm

import (
	"bytes"
	"cmp"
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

// Source is where a kernel comes from: a suite of a distribution, and the
// series wanted, such as "6.12"; "": the newest that the suite holds.
type Source struct {
	Distro string // debian or ubuntu
	Suite  string
	Series string
}

// String names the source for people.
func (s Source) String() string {
	return strings.TrimSpace(s.Distro + " " + s.Suite + " " + s.Series)
}

// Kernel is an unpacked kernel.
type Kernel struct {
	Source  Source
	Release string // as uname -r says
	Image   string // path of the bootable image
	Modules string // folder of its modules
}

// distro says where a distribution's packages are and what signs them.
type distro struct {
	mirror  string // empty: the one that this machine's own packages come from
	keyring string // file
	pkg     string // package that the keyring is in, if it isn't on this machine
	flavour string // suffix of the image packages
}

// keyringSuite is the suite of Debian with the keyrings of other distributions.
const keyringSuite = "trixie"

var distros = map[string]distro{
	"debian": {"", "/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", "-cloud-amd64"},
	"ubuntu": {"http://archive.ubuntu.com/ubuntu", "/usr/share/keyrings/ubuntu-archive-keyring.gpg", "ubuntu-keyring", "-generic"},
}

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
	k := Kernel{Source: src}
	a, err := newApt(ctx, filepath.Join(dir, "apt-"+src.Distro+"-"+src.Suite), src)
	if err != nil {
		return k, err
	}
	pkg, err := a.resolve(ctx, src)
	if err != nil {
		return k, err
	}
	tree := filepath.Join(dir, pkg)
	if _, err := os.Stat(tree); errors.Is(err, os.ErrNotExist) {
		pkgs, err := a.parts(ctx, pkg)
		if err != nil {
			return k, err
		}
		if err := a.unpack(ctx, pkgs, tree); err != nil {
			return k, err
		}
	}
	return open(src, tree)
}

// open looks at an unpacked kernel.
func open(src Source, tree string) (Kernel, error) {
	k := Kernel{Source: src}
	images, _ := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if len(images) == 0 { // linux-binary packages of 6.19 and later
		images, _ = filepath.Glob(filepath.Join(tree, "usr", "lib", "modules", "*", "vmlinuz"))
	}
	if len(images) == 0 {
		return k, fmt.Errorf("find kernel in %s: no vmlinuz", tree)
	}
	k.Image = images[0]
	for _, lib := range []string{"lib", "usr/lib"} {
		if dirs, _ := filepath.Glob(filepath.Join(tree, lib, "modules", "*", "kernel")); len(dirs) > 0 {
			k.Modules = filepath.Dir(dirs[0])
			k.Release = filepath.Base(k.Modules)
			return k, nil
		}
	}
	return k, fmt.Errorf("find modules in %s: none", tree)
}

// newApt reads the package lists of one suite.
func newApt(ctx context.Context, dir string, src Source) (*apt, error) {
	d, ok := distros[src.Distro]
	if !ok {
		return nil, fmt.Errorf("fetch kernel: unknown distribution %q", src.Distro)
	}
	a := &apt{dir: dir}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("create package folder: %w", err)
		}
	}
	keyring, err := findKeyring(ctx, dir, d)
	if err != nil {
		return nil, err
	}
	suites := []string{src.Suite}
	if src.Distro == "ubuntu" {
		suites = append(suites, src.Suite+"-updates")
	}
	mirror := d.mirror
	if mirror == "" {
		if mirror, err = ownMirror(ctx); err != nil {
			return nil, err
		}
	}
	var list strings.Builder
	for _, s := range suites {
		fmt.Fprintf(&list, "deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirror, s)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "sources.list"), []byte(list.String()), 0o644),
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

// findKeyring returns a keyring's path, unpacked from its package if this
// machine doesn't have it.
func findKeyring(ctx context.Context, dir string, d distro) (string, error) {
	if _, err := os.Stat(d.keyring); err == nil {
		return d.keyring, nil
	}
	path := filepath.Join(dir, "keyring", d.keyring)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	// Debian signs the keyrings of others as packages of its own.
	debian, err := newApt(ctx, dir+"-keyring", Source{Distro: "debian", Suite: keyringSuite})
	if err != nil {
		return "", err
	}
	if err := debian.unpack(ctx, []string{d.pkg}, filepath.Join(dir, "keyring")); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("fetch keyring %s: %w", d.pkg, err)
	}
	return path, nil
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

var versionRE = regexp.MustCompile(`^linux-image-(?:unsigned-)?(\d+)\.(\d+)(?:\.(\d+))?([^a-z]*)`)

// resolve names the newest image package of a source.
func (a *apt) resolve(ctx context.Context, src Source) (string, error) {
	names, err := a.run(ctx, "apt-cache", "pkgnames", "linux-image-")
	if err != nil {
		return "", err
	}
	best := newest(strings.Fields(names), src.Series, distros[src.Distro].flavour)
	if best == "" {
		return "", fmt.Errorf("resolve kernel %s: %w", src, ErrNoKernel)
	}
	return best, nil
}

// newest picks the image package with the highest version of a series.
func newest(names []string, series, flavour string) string {
	var best string
	var bestVersion []int
	for _, name := range names {
		m := versionRE.FindStringSubmatch(name)
		if m == nil || !strings.HasSuffix(name, flavour) || strings.Contains(name, "unsigned") ||
			series != "" && m[1]+"."+m[2] != series {
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

// parts names an image package and those with the rest of the kernel.
func (a *apt) parts(ctx context.Context, pkg string) ([]string, error) {
	deps, err := a.run(ctx, "apt-cache", "depends", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", pkg)
	return append([]string{pkg}, partsOf(deps)...), err
}

// unpack downloads packages and unpacks them into tree, which appears whole or
// not at all.
func (a *apt) unpack(ctx context.Context, pkgs []string, tree string) error {
	if _, err := a.run(ctx, "apt-get", append([]string{"-q", "download"}, pkgs...)...); err != nil {
		return err
	}
	tmp := tree + ".part"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	debs, _ := filepath.Glob(filepath.Join(a.dir, "*.deb"))
	slices.SortFunc(debs, cmp.Compare[string])
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb, tmp).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", deb, err, bytes.TrimSpace(out))
		}
		if err := os.Remove(deb); err != nil {
			return fmt.Errorf("unpack kernel: %w", err)
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
