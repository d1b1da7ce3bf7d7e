package archtest_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sluice-net/sluice/"

// layers says what each package may import of our own. A name that ends in /
// stands for all packages below it, "*" for all. Tests are not bound.
var layers = map[string][]string{
	"xdpprog":            {},
	"dataplane/endpoint": {},
	"dataplane/rule":     {"dataplane/endpoint"},
	"dataplane/rule/":    {"dataplane/endpoint", "dataplane/rule"},
	"dataplane/stat":     {},
	"dataplane/packet":   {"dataplane/stat"},
	"dataplane/event":    {"dataplane/endpoint", "dataplane/packet", "dataplane/rule", "dataplane/stat"},
	"dataplane/xsk":      {},
	"dataplane/flow":     {"dataplane/endpoint", "dataplane/packet", "dataplane/rule", "dataplane/stat"},
	"dataplane/classify": {"dataplane/endpoint", "dataplane/packet", "dataplane/rule"},
	"dataplane":          {"dataplane/", "xdpprog"},

	"control/policy":        {},
	"control/policy/":       {"control/policy", "control/policy/labelselector", "control/policy/clusterrule"},
	"control/policy/text":   {"control/policy", "dataplane/packet"},
	"control/policy/calico": {"control/policy", "control/policy/calico/selector", "control/policy/networkpolicy"},
	"control/store":         {"control/policy"},
	"control/source/":       {"control/policy", "control/policy/", "control/source/object", "control/store"},
	"control/resolve":       {"control/policy", "control/store", "dataplane/rule"},
	"control/compile":       {"control/policy", "control/resolve", "control/store", "dataplane/endpoint", "dataplane/rule"},
	"control/publish":       {"control/compile", "dataplane/classify"},
	"control/names":         {"control/policy", "dataplane/endpoint", "dataplane/event", "dataplane/packet"},
	"control/forward":       {"dataplane", "dataplane/classify", "dataplane/endpoint", "dataplane/packet", "dataplane/rule"},
	"control/link":          {"dataplane", "dataplane/endpoint", "xdpprog"},
	"control/server":        {},
	"control/api":           {"control/server", "dataplane/rule"},
	"control/observe":       {"control/api", "control/observe/history", "dataplane/endpoint", "dataplane/event", "dataplane/packet", "dataplane/rule", "dataplane/stat"},
	"control/metrics":       {"control/observe", "control/observe/hubble", "control/server", "dataplane", "dataplane/rule", "dataplane/stat", "xdpprog"},
	"control/web":           {"control/api", "control/observe", "control/server", "dataplane/event", "dataplane/packet", "dataplane/rule"},
	"control/e2e":           {},
	"control":               {"control/", "dataplane", "dataplane/", "xdpprog"},

	"control/observe/history":     {},
	"control/observe/filter":      {"dataplane/event"},
	"control/observe/hubble":      {"control/observe", "control/observe/filter", "control/server", "dataplane/event", "dataplane/packet", "dataplane/rule", "dataplane/stat"},
	"control/observe/observetest": {"control/observe", "dataplane/endpoint", "dataplane/event", "dataplane/packet", "dataplane/rule", "dataplane/stat"},

	"bench/":         {"bench/", "control/", "dataplane/", "dataplane", "xdpprog"},
	"deploy/":        {},
	"tools/archtest": {},
	"tools/":         {"*"},
}

// sole says who alone may import a library, tests aside.
var sole = map[string][]string{
	"github.com/cilium/ebpf":         {"xdpprog", "bench/"},
	"github.com/vishvananda/netlink": {"control/link", "bench/", "tools/"},
	"github.com/vishvananda/netns":   {"control/link", "bench/", "tools/"},
	"github.com/mdlayher/netlink":    {"control/forward"},
	"github.com/google/gopacket":     {"bench/", "control/observe", "tools/"},
	"github.com/asavie/xdp":          {"bench/"},
	"github.com/prometheus":          {"control/metrics"},
	"k8s.io/client-go":               {"control/source/", "tools/"},
	"sigs.k8s.io/yaml":               {"control/source/", "control", "bench/", "tools/"},
	"go.yaml.in/yaml":                {"control/source/manifest"},
	"github.com/spf13/cobra":         {"tools/sluice", "tools/"},
	"github.com/containernetworking": {"tools/cni"},
}

func TestLayers(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file != root && skipped(file) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		seen++
		check(t, file, filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Fatalf("saw %d files: looked in the wrong place?", seen)
	}
}

// skipped says which folders are not ours to judge: hidden ones, test data and
// nested modules.
func skipped(dir string) bool {
	name := filepath.Base(dir)
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || err == nil
}

func check(t *testing.T, file, rel string) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	pkg := path.Dir(rel)
	allowed, ok := lookup(pkg)
	if !ok {
		t.Errorf("%s: package %s has no place in the layers", rel, pkg)
	}
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		if name == "unsafe" && !strings.HasSuffix(rel, "_unsafe.go") {
			t.Errorf("%s: unsafe belongs in a *_unsafe.go file", rel)
		}
		if own, ok := strings.CutPrefix(name, module); ok && !permits(allowed, own) {
			t.Errorf("%s: %s may not import %s", rel, pkg, own)
		}
		for lib, users := range sole {
			if (name == lib || strings.HasPrefix(name, lib+"/")) && !permits(users, pkg) {
				t.Errorf("%s: only %v may import %s", rel, users, lib)
			}
		}
	}
}

// lookup finds the most specific rule of a package.
func lookup(pkg string) ([]string, bool) {
	if allowed, ok := layers[pkg]; ok {
		return allowed, true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if allowed, ok := layers[dir+"/"]; ok {
			return allowed, true
		}
	}
	return nil, false
}

func permits(allowed []string, pkg string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == "*" || a == pkg || strings.HasSuffix(a, "/") && strings.HasPrefix(pkg, a)
	})
}
