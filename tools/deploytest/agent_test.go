package deploytest_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/tools/uninstall"
)

const conflist = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": true, "ipam": {"type": "host-local", "subnet": "10.0.1.0/24"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
`

// TestAgent runs the pod of the DaemonSet: with its image, its command lines,
// exactly its capabilities, its mounts, a root that can't be written, the
// runtime's seccomp filter and the rights of its service account. What the
// cluster says is enforced, and goes on after the agent.
func TestAgent(t *testing.T) {
	n := newNode(t)
	spec := &n.daemons.Spec.Template.Spec
	confDir := filepath.Join(n.host, "etc/cni/net.d")
	must(t, os.MkdirAll(confDir, 0o755))
	file := filepath.Join(confDir, "10-pods.conflist")
	must(t, os.WriteFile(file, []byte(conflist), 0o644))
	t.Log(n.complete(spec, "install-cni"))
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `"sluice-cni"`) || !strings.Contains(string(text), `"portmap"`) {
		t.Fatalf("configuration is not chained: %v: %s", err, text)
	}
	plugin := exec.Command(filepath.Join(n.host, "opt/cni/bin/sluice-cni"))
	plugin.Env = []string{"CNI_COMMAND=VERSION"}
	plugin.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
	if out, err := plugin.CombinedOutput(); err != nil || !strings.Contains(string(out), "supportedVersions") {
		t.Fatalf("plugin: %v: %s", err, out)
	}

	server, friend, other := n.addPod("server", "app: server", 1), n.addPod("friend", "role: friend", 2), n.addPod("other", "role: other", 3)
	n.serve(server, 80)
	n.cluster.Apply(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends, namespace: x}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 80}]}]
`)
	pods := 3
	agent := n.start(spec, "agent")
	ready := func() bool {
		select {
		case <-agent.done:
			t.Fatalf("agent ended: %v\n%s", agent.err, agent.out.String())
		default:
		}
		s, ok := n.status()
		return ok && s.Ready && s.Endpoints == pods
	}
	eventually(t, "agent enforces", ready)
	enforced := func(when string) {
		t.Helper()
		if !n.reaches(friend, server, 80) {
			t.Errorf("%s: what policy allows does not arrive", when)
		}
		if n.reaches(other, server, 80) {
			t.Errorf("%s: what policy denies arrives", when)
		}
	}
	enforced("agent runs")

	// A pod that comes later: its namespace is mounted after the container is.
	late := n.addPod("late", "role: friend", 4)
	pods++
	eventually(t, "later pod is known", ready)
	if !n.reaches(late, server, 80) {
		t.Error("a later pod's connection does not arrive")
	}

	n.kill(agent, unix.SIGTERM)
	if agent.err != nil {
		t.Errorf("agent ended: %v", agent.err)
	}
	if len(n.pins()) == 0 {
		t.Error("nothing is pinned after the agent ended")
	}
	if n.reaches(friend, server, 80) || n.reaches(other, server, 80) {
		t.Error("new connections pass without an agent")
	}
	agent = n.start(spec, "agent")
	eventually(t, "successor enforces", ready)
	enforced("successor runs")
	n.probes(spec)

	// Removal: the same DaemonSet, as "sluice uninstall" changes it.
	n.kill(agent, unix.SIGTERM)
	cleaning := n.daemons.DeepCopy()
	must(t, uninstall.Clean(cleaning))
	steps := &cleaning.Spec.Template.Spec
	for _, c := range steps.InitContainers {
		n.complete(steps, c.Name)
	}
	stay := n.start(steps, "agent")
	eventually(t, "clean node", func() bool { return strings.Contains(stay.out.String(), "is clean") })
	n.probes(steps)
	if len(n.pins()) > 0 || len(n.links("sluice")) > 0 {
		t.Errorf("left: %v, %v", n.pins(), n.links("sluice"))
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != conflist {
		t.Errorf("configuration is not what it was: %v: %s", err, text)
	}
	if left, err := filepath.Glob(filepath.Join(n.host, "*/cni/*/*")); err != nil || !slices.Equal(left, []string{file}) {
		t.Errorf("left for CNI: %v, %v", left, err)
	}
	if !n.reaches(friend, server, 80) || !n.reaches(other, server, 80) {
		t.Error("connections do not pass after removal")
	}
	n.kill(stay, unix.SIGTERM)
	if stay.err != nil {
		t.Errorf("the pod that stays ended: %v", stay.err)
	}
}

// probes asks what the kubelet asks.
func (n *node) probes(spec *corev1.PodSpec) {
	n.Helper()
	agent := container(n, spec, "agent")
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = n.net.Host().Do(func() (err error) { c, err = net.Dial(network, address); return err })
			return c, err
		}}}
	for what, p := range map[string]*corev1.Probe{"startup": agent.StartupProbe, "liveness": agent.LivenessProbe, "readiness": agent.ReadinessProbe} {
		url := "http://" + net.JoinHostPort(p.HTTPGet.Host, p.HTTPGet.Port.String()) + p.HTTPGet.Path
		eventually(n, what, func() bool {
			resp, err := client.Get(url)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}

// TestCapabilities takes one capability after another away: without any of them
// the agent can't work, so the manifest names none too many.
func TestCapabilities(t *testing.T) {
	n := newNode(t)
	spec := &n.daemons.Spec.Template.Spec
	n.addPod("pod", "app: none", 1)
	for _, lacks := range container(t, spec, "agent").SecurityContext.Capabilities.Add {
		t.Run(string(lacks), func(t *testing.T) {
			n.change = func(s map[string]any) {
				sets := s["process"].(object)["capabilities"].(object)
				for k, v := range sets {
					sets[k] = slices.DeleteFunc(slices.Clone(v.([]string)), func(c string) bool { return c == "CAP_"+string(lacks) })
				}
			}
			agent := n.start(spec, "agent")
			defer n.kill(agent, unix.SIGKILL)
			eventually(t, "refusal", func() bool {
				log := agent.out.String()
				return strings.Contains(log, "operation not permitted") || strings.Contains(log, "no buffer space available")
			})
			if s, ok := n.status(); ok && s.Ready {
				t.Error("ready without it")
			}
		})
	}
	n.change = nil
	n.start(spec, "agent")
	eventually(t, "ready with all of them", func() bool { s, ok := n.status(); return ok && s.Ready && s.Endpoints == 1 })
}
