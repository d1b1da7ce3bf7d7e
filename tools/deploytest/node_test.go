package deploytest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
)

const (
	nodeName  = "node-1"
	namespace = "kube-system"
)

// node is a node of a cluster with the manifests applied, where the test is the
// kubelet.
type node struct {
	*runtimeNode
	cluster *kubetest.Server
	api     *api.Client
	daemons *appsv1.DaemonSet // as the API server has it
	ports   atomic.Uint32
}

var nodes atomic.Int32

// ownerGone says whether the run that made a node by this name has ended.
func ownerGone(name string) bool {
	var pid, number int
	_, err := fmt.Sscanf(name, "dt-%d-%d", &pid, &number)
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// newNode builds a node, a cluster and what the manifests make of both.
func newNode(t *testing.T) *node {
	t.Helper()
	needs(t, "root", os.Geteuid() == 0)
	_, err := exec.LookPath("crun")
	needs(t, "crun", err == nil)
	image := unpack(t)
	lab, err := netlab.New(netlab.Default(fmt.Sprintf("dt-%d-%d", os.Getpid(), nodes.Add(1))))
	must(t, err)
	t.Cleanup(func() { must(t, lab.Close()) })
	n := &node{runtimeNode: &runtimeNode{TB: t, net: lab, image: image, host: t.TempDir(),
		paths: map[string]string{"/run/netns": netlab.RunDir}, files: map[string]string{}}}
	n.ports.Store(20000)
	n.mountBPF()
	n.startCluster()
	n.api = api.NewClient(filepath.Join(n.host, "run/sluice/sluice.sock"))
	return n
}

// mountBPF does what systemd does on a node.
func (n *node) mountBPF() {
	n.Helper()
	at := filepath.Join(n.host, "sys/fs/bpf")
	must(n, os.MkdirAll(at, 0o755))
	must(n, unix.Mount("bpf", at, "bpf", 0, "mode=0700"))
	n.Cleanup(func() { must(n, unix.Unmount(at, unix.MNT_DETACH)) })
}

// startCluster starts an API server on the node, applies the manifests, and
// prepares what the kubelet mounts of them.
func (n *node) startCluster() {
	n.Helper()
	host := n.net.Host()
	n.cluster = kubetest.Start(n, kubetest.Options{Args: []string{"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112"}, Enter: host.Enter, Dial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = host.Do(func() (err error) {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, address)
			return err
		})
		return c, err
	}})
	for _, doc := range documents(n, base) {
		n.cluster.Apply(doc)
	}
	k, _ := n.cluster.Client()
	var err error
	n.daemons, err = k.AppsV1().DaemonSets(namespace).Get(n.Context(), "sluice-agent", metav1.GetOptions{})
	must(n, err)
	token, err := k.CoreV1().ServiceAccounts(namespace).CreateToken(n.Context(), n.daemons.Spec.Template.Spec.ServiceAccountName,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(n, err)
	ca, err := os.ReadFile(n.cluster.Config("").CAFile)
	must(n, err)
	n.files["token"] = n.folder(map[string]string{"token": token.Status.Token, "ca.crt": string(ca), "namespace": namespace})
	conf, err := os.ReadFile(filepath.Join(base, "agent.yaml"))
	must(n, err)
	n.files["config"] = n.folder(map[string]string{"agent.yaml": string(conf)})
	addr, port, err := net.SplitHostPort(n.cluster.Address())
	must(n, err)
	n.env = []string{"KUBERNETES_SERVICE_HOST=" + addr, "KUBERNETES_SERVICE_PORT=" + port}
	n.cluster.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n")
	n.cluster.Apply("apiVersion: v1\nkind: Node\nmetadata: {name: " + nodeName + "}\n")
}

func (n *node) folder(files map[string]string) string {
	n.Helper()
	dir := n.TempDir()
	for name, text := range files {
		must(n, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

// status asks the agent, if it answers.
func (n *node) status() (s api.Status, ok bool) {
	s, err := n.api.Status(n.Context())
	return s, err == nil
}

// pod is a pod of namespace x.
type pod struct {
	*netlab.Pod
	name string
}

// addPod plugs a pod in, and tells the API server of it as a kubelet does.
func (n *node) addPod(name, labels string, number int) *pod {
	n.Helper()
	addrs := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.1.%d", 10+number)), netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", 0x10+number))}
	p, err := n.net.AddPod("x/"+name, addrs)
	must(n, err)
	n.cluster.Apply(fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: x, labels: {%s}}\nspec: {nodeName: %s, containers: [{name: c, image: none}]}\n",
		name, labels, nodeName))
	k, _ := n.cluster.Client()
	status := fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q},{"ip":%q}]}}`, addrs[0], addrs[0], addrs[1])
	_, err = k.CoreV1().Pods("x").Patch(n.Context(), name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	must(n, err)
	return &pod{p, name}
}

// serve starts echo servers on all of a pod's addresses.
func (n *node) serve(p *pod, port uint16) {
	n.Helper()
	for _, a := range p.Addrs() {
		c, err := p.Namespace().EchoTCP(netip.AddrPortFrom(a, port))
		must(n, err)
		n.Cleanup(func() { c.Close() })
	}
}

// reaches tries one connection each over IPv4 and IPv6; both go the same way, or
// it is tried again.
func (n *node) reaches(from, to *pod, port uint16) bool {
	n.Helper()
	for range 3 {
		var passed [2]bool
		for i := range passed {
			r, err := from.Namespace().ProbeTCP(n.Context(), netip.AddrPortFrom(from.Addrs()[i], uint16(n.ports.Add(1))), netip.AddrPortFrom(to.Addrs()[i], port))
			must(n, err)
			passed[i] = r.Passed
		}
		if passed[0] == passed[1] {
			return passed[0]
		}
	}
	n.Fatalf("%s to %s: IPv4 and IPv6 differ", from.name, to.name)
	return false
}

// pins lists what is pinned in the kernel.
func (n *node) pins() []string {
	n.Helper()
	var all []string
	for _, sub := range []string{"links", "maps"} {
		names, err := filepath.Glob(filepath.Join(n.host, "sys/fs/bpf/sluice", sub, "*"))
		must(n, err)
		all = append(all, names...)
	}
	return all
}

// links lists the links in the node's namespace by a part of their names.
func (n *node) links(part string) (found []string) {
	n.Helper()
	must(n, n.net.Host().Do(func() error {
		ifs, err := net.Interfaces()
		for _, i := range ifs {
			if strings.Contains(i.Name, part) {
				found = append(found, i.Name+"#"+strconv.Itoa(i.Index))
			}
		}
		return err
	}))
	return found
}
