package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/source/manifest"
)

// needPriv skips the test for an ordinary user, and fails it where
// REQUIRE_PRIV=1 says that privileges are expected.
func needPriv(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		tb.Fatal("REQUIRE_PRIV=1, but not root")
	}
	tb.Skip("needs root")
}

// patience bounds what a test waits for. It says nothing about speed: a busy
// machine may take long.
var patience = patienceFrom(os.Getenv(patienceVar))

// patienceVar sets another patience, for machines that are emulated.
const patienceVar = "SLUICE_E2E_PATIENCE"

func patienceFrom(s string) time.Duration {
	if d, err := time.ParseDuration(s); err == nil {
		return d
	}
	return time.Minute
}

// node is a node with an agent, as a test sees it.
type node struct {
	*testing.T
	net       *netlab.Net
	cfg       control.Config
	agent     *agent
	api       *api.Client
	dir       string // of manifests
	bpffs     int    // mounted nowhere
	ports     atomic.Uint32
	confPath  string
	exe       string // the agent; "": this binary
	manifests map[string]string
	cluster   *kubetest.Server // or nil
}

// setup says what is special about a node.
type setup struct {
	shape   netlab.Shape
	mtu     int
	queues  int
	cable   []string // NICs that make it; nil: a veth pair
	bond    []string // members of a bond that is the uplink
	change  func(*control.Config)
	noAgent bool
	cluster bool // objects live in an API server, not in manifests
}

var nodes atomic.Int32

// newNode builds a node without pods and starts its agent.
func newNode(t *testing.T, s setup) *node {
	t.Helper()
	needPriv(t)
	name := runName(int(nodes.Add(1)))
	lab := netlab.Default(name)
	if s.shape != "" {
		lab.Shape = s.shape
	}
	if s.mtu != 0 {
		lab.MTU = s.mtu
	}
	if s.queues != 0 {
		lab.Queues = s.queues
	}
	lab.Cable, lab.Bond = s.cable, s.bond
	l, err := netlab.New(lab)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	dir, err := os.MkdirTemp("", "sluice-"+name+"-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })

	n := &node{T: t, net: l, dir: filepath.Join(dir, "manifests"), confPath: filepath.Join(dir, "agent.yaml"),
		manifests: make(map[string]string)}
	n.ports.Store(20000)
	must(t, os.Mkdir(n.dir, 0o755))
	n.bpffs = mountBPF(t)
	n.cfg = control.Default()
	n.cfg.NodeName = "node"
	n.cfg.Socket = filepath.Join(dir, "api.sock")
	n.cfg.Hubble.Socket = filepath.Join(dir, "hubble.sock")
	n.cfg.PinPath = fmt.Sprintf("/proc/self/fd/%d", agentBPFFS)
	n.cfg.NetNS = []string{netlab.RunDir}
	n.cfg.History = 1 << 15
	n.cfg.FlowCache, n.cfg.DenyCache, n.cfg.FlowsPerQueue = 1<<14, 1<<12, 1<<13
	n.cfg.MaxPods, n.cfg.HugePages = 255, false
	if emulated { // it may stand still for seconds, and no worker of it beats then
		n.cfg.HeartbeatTimeout = control.Duration(20 * time.Second)
	}
	if s.change != nil {
		s.change(&n.cfg)
	}
	if s.cluster {
		n.startCluster()
	}
	n.api = api.NewClient(n.cfg.Socket)
	n.write("namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {kubernetes.io/metadata.name: x}}\n")
	if !s.noAgent {
		n.start()
	}
	return n
}

// mountBPF returns a bpffs that goes with its descriptor.
func mountBPF(t *testing.T) int {
	fs, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fs)
	must(t, unix.FsconfigCreate(fs))
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(mnt) })
	return mnt
}

// pins lists what is pinned below the agent's folder.
func (n *node) pins() []string {
	var all []string
	for _, sub := range []string{"links", "maps"} {
		names, err := filepath.Glob(fmt.Sprintf("/proc/self/fd/%d/%s/*", n.bpffs, sub))
		must(n.T, err)
		all = append(all, names...)
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write puts a manifest into the folder, atomically; remove takes it out. The
// agent may not have seen it yet: see settle.
func (n *node) write(name, text string) {
	n.Helper()
	n.manifests[name] = text
	if n.cluster != nil {
		n.cluster.Apply(text)
		return
	}
	tmp := filepath.Join(n.dir, "."+name)
	must(n.T, os.WriteFile(tmp, []byte(text), 0o644))
	must(n.T, os.Rename(tmp, filepath.Join(n.dir, name+".yaml")))
}

func (n *node) remove(name string) {
	n.Helper()
	if n.cluster != nil {
		n.cluster.Delete(n.manifests[name])
		delete(n.manifests, name)
		return
	}
	delete(n.manifests, name)
	must(n.T, os.Remove(filepath.Join(n.dir, name+".yaml")))
}

// policy writes a NetworkPolicy of namespace x, given its spec in YAML.
func (n *node) policy(name, spec string) {
	n.Helper()
	n.write("policy-"+name, fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: x}\nspec:\n%s\n",
		name, indent(spec)))
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// apply writes a policy and waits until it is in force.
func (n *node) apply(name, spec string) {
	n.Helper()
	n.policy(name, spec)
	n.settle()
}

// settle waits until the agent has put into force what the manifests say, and
// has found all pods of the net.
func (n *node) settle() {
	n.Helper()
	if n.cluster != nil {
		n.settleCluster()
		return
	}
	var s api.Status
	n.eventually("manifests in force", func() bool {
		want, err := manifest.Digest(n.dir)
		must(n.T, err)
		ctx, cancel := context.WithTimeout(n.Context(), patience)
		defer cancel()
		s, err = n.api.Status(ctx)
		return err == nil && s.Ready && s.Digest == want
	})
}

// eventually polls until something holds.
func (n *node) eventually(what string, holds func() bool) {
	n.Helper()
	if !within(patience, holds) {
		n.Fatalf("%s: not within %v", what, patience)
	}
}

// within polls for some time until something holds, and reports whether it did.
func within(d time.Duration, holds func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// pod is a pod of namespace x.
type pod struct {
	*netlab.Pod
	name   string
	labels string
	v4, v6 netip.Addr
}

// addPod plugs a pod in and writes its manifest; number makes its addresses.
func (n *node) addPod(name string, number int, labels string) *pod {
	n.Helper()
	p := &pod{name: name, labels: labels,
		v4: netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", 1+number/200, 10+number%200)),
		v6: netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", 0x10+number))}
	var err error
	p.Pod, err = n.net.AddPod("x/"+name, []netip.Addr{p.v4, p.v6})
	must(n.T, err)
	n.label(p, labels)
	return p
}

// label writes the pod's manifest, with other labels.
func (n *node) label(p *pod, labels string) {
	n.Helper()
	p.labels = labels
	if n.cluster != nil {
		n.labelInCluster(p)
		return
	}
	n.write("pod-"+p.name, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: x, uid: %s, labels: {%s}}\nspec: {nodeName: node}\nstatus: {phase: Running, podIPs: [{ip: %s}, {ip: %q}]}\n",
		p.name, p.name, labels, p.v4, p.v6))
}

// removePod unplugs a pod and takes its manifest out.
func (n *node) removePod(p *pod) {
	n.Helper()
	n.remove("pod-" + p.name)
	must(n.T, n.net.RemovePod(p.Key()))
}

// addr is one of a pod's addresses, by family.
func (p *pod) addr(family int) netip.Addr {
	if family == 4 {
		return p.v4
	}
	return p.v6
}

func (n *node) port() uint16 { return uint16(n.ports.Add(1)) }
