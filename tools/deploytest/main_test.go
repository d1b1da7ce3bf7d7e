package deploytest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/bench/netlab"
)

// patience bounds what a test waits for. It says nothing about speed.
const patience = time.Minute

const base = "../../deploy/kustomize/base"

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// eventually polls until something holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// needs skips for an ordinary user or without a program or file, and fails where
// REQUIRE_PRIV=1 says that all is expected to be there.
func needs(tb testing.TB, what string, there bool) {
	tb.Helper()
	switch {
	case there:
	case os.Getenv("REQUIRE_PRIV") == "1":
		tb.Fatalf("REQUIRE_PRIV=1, but there is no %s: run make test-deploy", what)
	default:
		tb.Skipf("needs %s: run make test-deploy", what)
	}
}

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		sweepStale()
	}
	os.Exit(m.Run())
}

// sweepStale removes the nodes of runs that were killed.
func sweepStale() {
	spaces, _ := netlab.Namespaces("sluice-dt-")
	for _, s := range spaces {
		name, _, ok := strings.Cut(strings.TrimPrefix(s, "sluice-"), "--")
		if ok && ownerGone(name) {
			_ = netlab.Sweep(name)
		}
	}
}

// documents returns the documents of a folder's resources, by file and in order;
// not its kustomization, nor what generators read.
func documents(tb testing.TB, dir string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	must(tb, err)
	var docs []string
	for _, f := range files {
		if name := filepath.Base(f); name == "kustomization.yaml" || name == "agent.yaml" {
			continue
		}
		text, err := os.ReadFile(f)
		must(tb, err)
		for doc := range strings.SplitSeq("\n"+string(text), "\n---\n") {
			docs = append(docs, doc)
		}
	}
	if len(docs) < 5 {
		tb.Fatalf("%d documents in %s", len(docs), dir)
	}
	return docs
}

// agentDaemonSet reads the DaemonSet strictly: a field that Kubernetes doesn't
// know is an error.
func agentDaemonSet(tb testing.TB) *appsv1.DaemonSet {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(base, "daemonset.yaml"))
	must(tb, err)
	var ds appsv1.DaemonSet
	must(tb, yaml.UnmarshalStrict(text, &ds))
	return &ds
}

// container finds a container of a pod by its name.
func container(tb testing.TB, p *corev1.PodSpec, name string) *corev1.Container {
	tb.Helper()
	for _, list := range [][]corev1.Container{p.InitContainers, p.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	tb.Fatalf("no container %s", name)
	return nil
}
