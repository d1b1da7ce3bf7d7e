package deploytest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
}
