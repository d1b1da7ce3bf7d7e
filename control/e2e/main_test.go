package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/tools/cni"
)

// The variables that make an agent of the test binary.
const (
	configVar    = "SLUICE_E2E_CONFIG"    // configuration file
	manifestsVar = "SLUICE_E2E_MANIFESTS" // folder of manifests
	cleanupVar   = "SLUICE_E2E_CLEANUP"   // clean up instead of serving
	pluginVar    = "SLUICE_E2E_PLUGIN"    // be the CNI plugin instead
)

func TestMain(m *testing.M) {
	if os.Getenv(pluginVar) != "" {
		cni.Main("sluice-cni")
		return
	}
	if path := os.Getenv(configVar); path != "" {
		if err := agentMain(path, os.Getenv(manifestsVar), os.Getenv(cleanupVar) != ""); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	if os.Geteuid() == 0 {
		sweepStale()
	}
	// Tests wait most of the time, for silence above all: more of them at once
	// than there are cores, unless the caller wants another number.
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

// agentMain is the agent, until it is told to end or its parent has gone.
func agentMain(config, manifests string, cleanup bool) error {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	cfg, err := control.ReadConfig(config)
	if err != nil {
		return err
	}
	if cleanup {
		return control.Cleanup(cfg)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	st := store.New()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	src, err := openSource(cfg, manifests, st, log)
	if err != nil {
		return err
	}
	agent, err := control.New(cfg, st, src, log)
	if err != nil {
		return err
	}
	return agent.Run(ctx)
}

func openSource(cfg control.Config, manifests string, st *store.Store, log *slog.Logger) (control.Source, error) {
	if cfg.Kubeconfig != "" {
		src, err := kube.New(kube.Config{Kubeconfig: cfg.Kubeconfig, NodeName: cfg.NodeName, Report: cfg.Report,
			ReportNamespace: cfg.ReportNamespace, Retry: time.Second}, st, log)
		return cluster{src}, err
	}
	src, err := manifest.Open(manifests, st)
	return source{src}, err
}

// cluster makes a control.Source of a cluster.
type cluster struct{ *kube.Source }

func (c cluster) State() control.SourceState {
	k := c.Source.State()
	out := control.SourceState{Name: "cluster " + c.Server(), Synced: k.Synced, Digest: k.Digest, Rejections: k.Rejections, Notes: k.Notes}
	for _, w := range k.Watches {
		out.Watches = append(out.Watches, control.WatchState(w))
	}
	return out
}

// source makes a control.Source of a folder of manifests.
type source struct{ *manifest.Source }

func (s source) State() control.SourceState {
	m := s.Source.State()
	return control.SourceState{Name: "manifests " + s.Path(), Synced: true, Digest: m.Digest, Rejections: m.Rejections, Notes: m.Notes}
}

// Folders and nets of a test run carry the process ID of the run, so that a
// later one knows what was left behind by one that was killed.
func runName(n int) string { return fmt.Sprintf("e2e-%d-%d", os.Getpid(), n) }

var staleRE = regexp.MustCompile(`sluice-(e2e-(\d+)-\d+)`)

// sweepStale removes what test runs that were killed have left.
func sweepStale() {
	spaces, _ := netlab.Namespaces("sluice-e2e-")
	folders, _ := filepath.Glob(filepath.Join(os.TempDir(), "sluice-e2e-*"))
	for _, name := range append(spaces, folders...) {
		m := staleRE.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		pid, _ := strconv.Atoi(m[2])
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			continue // another test run is at work there
		}
		if filepath.IsAbs(name) {
			_ = os.RemoveAll(name)
		} else {
			_ = netlab.Sweep(m[1])
		}
	}
}
