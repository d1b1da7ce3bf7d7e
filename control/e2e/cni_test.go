package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
)

// pluginDir is where Debian puts the reference plugins.
const pluginDir = "/usr/lib/cni"

// containerRuntime runs CNI plugins on a node, as a container runtime does: the
// reference plugins as they are, and Sluice's as this test's own binary.
type containerRuntime struct {
	*node
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
	dir  string
}

// cniPod is a pod whose link a CNI plugin has made.
type cniPod struct {
	*pod
	ns      *netlab.Namespace
	rt      *libcni.RuntimeConf
	host    string // link
	inside4 netip.Addr
}

// Plugins that make links, by name: the shape of the node that results, and
// their part of the list.
var linkPlugins = map[string]string{
	"ptp":    `{"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": %s}`,
	"bridge": `{"type": "bridge", "bridge": "cni9", "isGateway": true, "hairpinMode": true, "ipam": %s}`,
}

// newRuntime makes the node a CNI node. version is that of the list; conf are
// further fields of Sluice's part.
func (n *node) newRuntime(plugin, version, conf string) *containerRuntime {
	n.Helper()
	if _, err := os.Stat(filepath.Join(pluginDir, plugin)); err != nil {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			n.Fatalf("containernetworking-plugins: %v", err)
		}
		n.Skip("needs containernetworking-plugins")
	}
	r := &containerRuntime{node: n, dir: filepath.Dir(n.dir)}
	ipam := fmt.Sprintf(`{"type": "host-local", "dataDir": %q, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
		"ranges": [[{"subnet": "10.9.0.0/20"}], [{"subnet": "fd00:9::/64"}]]}`, filepath.Join(r.dir, "ipam"))
	if conf != "" {
		conf = ", " + conf
	}
	list := fmt.Sprintf(`{"cniVersion": %q, "name": "pods", "plugins": [%s, {"type": "sluice-cni", "socket": %q, "pinPath": %q%s}]}`,
		version, fmt.Sprintf(linkPlugins[plugin], ipam), n.cfg.Socket, n.pinPath(), conf)
	var err error
	r.list, err = libcni.NetworkConfFromBytes([]byte(list))
	must(n.T, err)
	r.runBy(pluginRunner{n})
	return r
}

// runBy makes plugins run by e.
func (r *containerRuntime) runBy(e invoke.Exec) {
	r.cni = libcni.NewCNIConfigWithCacheDir([]string{pluginDir}, filepath.Join(r.dir, "cache"), e)
}

// pinPath names the agent's bpffs to processes of others.
func (n *node) pinPath() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.bpffs) }

// pluginRunner runs plugins in the node's namespace.
type pluginRunner struct{ n *node }

func (p pluginRunner) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	cmd.Env = append(env, pluginVar+"=1", "CNI_PATH="+pluginDir)
	err := p.n.net.Host().Run(cmd)
	if err == nil {
		return out.Bytes(), nil
	}
	e := &types.Error{Msg: fmt.Sprintf("%v: %s", err, errs.String())}
	if json.Unmarshal(out.Bytes(), e) == nil {
		err = e
	}
	return nil, err
}

func (p pluginRunner) FindInPath(plugin string, paths []string) (string, error) {
	if plugin == "sluice-cni" {
		return os.Executable()
	}
	return invoke.FindInPath(plugin, paths)
}

func (p pluginRunner) Decode(b []byte) (version.PluginInfo, error) {
	return (&version.PluginDecoder{}).Decode(b)
}

// sandbox makes a sandbox for a pod of namespace x.
func (r *containerRuntime) sandbox(name string) *cniPod {
	r.Helper()
	ns, err := netlab.CreateNamespace(netlab.Prefix(r.net.Config().Name) + "x." + name)
	must(r.T, err)
	r.Cleanup(func() { ns.Close() })
	must(r.T, ns.Do(func() error { // addresses are usable at once
		for _, which := range []string{"default", "all"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/accept_dad", []byte("0"), 0o644); err != nil {
				return err
			}
		}
		return nil
	}))
	return &cniPod{ns: ns, pod: &pod{name: name}, rt: &libcni.RuntimeConf{
		ContainerID: "c-" + name, NetNS: filepath.Join(netlab.RunDir, ns.Name()), IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "x"}, {"K8S_POD_NAME", name}, {"K8S_POD_UID", name}},
	}}
}

// declare writes the pod's manifest as the API has it before its sandbox: it
// has no addresses yet.
func (r *containerRuntime) declare(p *cniPod, labels string) {
	r.Helper()
	p.labels = labels
	r.write("pod-"+p.name, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: x, uid: %s, labels: {%s}}\nspec: {nodeName: node}\nstatus: {phase: Pending}\n",
		p.name, p.uid(), labels))
}

func (p *cniPod) uid() string { return p.rt.Args[3][1] }

// report writes the manifest as the kubelet completes it.
func (r *containerRuntime) report(p *cniPod) {
	r.Helper()
	r.write("pod-"+p.name, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: x, uid: %s, labels: {%s}}\nspec: {nodeName: node}\nstatus: {phase: Running, podIPs: [{ip: %s}, {ip: %q}]}\n",
		p.name, p.uid(), p.labels, p.v4, p.v6))
}

// add runs ADD.
func (r *containerRuntime) add(p *cniPod) error {
	r.Helper()
	res, err := r.cni.AddNetworkList(r.Context(), r.list, p.rt)
	if err != nil {
		return err
	}
	got, err := current.NewResultFromResult(res)
	must(r.T, err)
	for _, ip := range got.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		if a = a.Unmap(); a.Is4() {
			p.v4 = a
		} else {
			p.v6 = a
		}
	}
	for _, i := range got.Interfaces {
		if i.Sandbox == "" && strings.HasPrefix(i.Name, "veth") {
			p.host = i.Name
		}
	}
	return nil
}

func (r *containerRuntime) mustAdd(p *cniPod) {
	r.Helper()
	must(r.T, r.add(p))
}

func (r *containerRuntime) del(p *cniPod) {
	r.Helper()
	must(r.T, r.cni.DelNetworkList(context.WithoutCancel(r.Context()), r.list, p.rt))
}

// end takes a pod away as a kubelet does: DEL, then the sandbox, then the
// object.
func (r *containerRuntime) end(p *cniPod) {
	r.Helper()
	r.del(p)
	must(r.T, netlab.DeleteNamespace(p.ns.Name()))
	r.remove("pod-" + p.name)
}

// probes gives those between two pods of CNI plugins.
func (r *containerRuntime) probes(from, to *cniPod, port uint16, pass bool, why ...string) []*probe {
	var out []*probe
	for _, proto := range []string{"tcp", "udp"} {
		for _, family := range []int{4, 6} {
			p := &probe{proto: proto, from: from.ns, src: from.addr(family), dst: to.addr(family), dport: port, pass: pass}
			if len(why) > 0 {
				p.reason, p.policy = "policy", why[0]
			}
			out = append(out, p)
		}
	}
	return out
}

// dark sees that no probe arrives. Neighbours are not found on a closed link
// either, so to have no route is another way to be denied.
func (r *containerRuntime) dark(probes ...*probe) {
	r.Helper()
	var wg sync.WaitGroup
	for _, p := range probes {
		p.sport = r.port()
		wg.Go(func() {
			try := p.from.ProbeTCP
			if p.proto == "udp" {
				try = p.from.ProbeUDP
			}
			res, err := try(r.Context(), at(p.src, p.sport), at(p.dst, p.dport))
			if res.Passed || err != nil && !errors.Is(err, unix.EHOSTUNREACH) {
				r.Errorf("%v: passed %v (%s, %v), want none", p, res.Passed, res.Seen, err)
			}
		})
	}
	wg.Wait()
}

// everyPlugin runs a test with each plugin that makes links.
func everyPlugin(t *testing.T, test func(t *testing.T, plugin string)) {
	for plugin := range linkPlugins {
		t.Run(plugin, func(t *testing.T) {
			t.Parallel()
			test(t, plugin)
		})
	}
}

// TestCNI starts pods by a list of real plugins. Each one's policy is in force
// when ADD returns, though the API doesn't know its addresses.
func TestCNI(t *testing.T) {
	t.Parallel()
	everyPlugin(t, func(t *testing.T, plugin string) {
		n := newNode(t, setup{})
		r := n.newRuntime(plugin, "1.0.0", "")
		n.policy("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
			"- from: [{podSelector: {matchLabels: {role: friend}}}]")
		n.settle()
		server, friend, other := r.sandbox("server"), r.sandbox("friend"), r.sandbox("other")
		r.declare(server, "app: server")
		r.declare(friend, "role: friend")
		r.declare(other, "role: other")
		for _, p := range []*cniPod{server, friend, other} {
			r.mustAdd(p)
		}
		for _, family := range []int{4, 6} {
			n.serve(server.ns, server.addr(family), 80)
		}
		check := func() {
			t.Helper()
			n.probeAll(append(r.probes(friend, server, 80, true), r.probes(other, server, 80, false, "server")...)...)
		}
		check()
		must(t, r.cni.CheckNetworkList(t.Context(), r.list, server.rt))

		// The kubelet reports; nothing changes.
		for _, p := range []*cniPod{server, friend, other} {
			r.report(p)
		}
		n.settle()
		check()

		// The agent starts anew; another does while a pod is not reported yet.
		late := r.sandbox("late")
		r.declare(late, "role: other")
		r.mustAdd(late)
		n.signal(15)
		n.start()
		check()
		n.probeAll(r.probes(late, server, 80, false, "server")...)
		must(t, r.cni.CheckNetworkList(t.Context(), r.list, late.rt))

		// DEL, twice, then nothing is left.
		for _, p := range []*cniPod{server, friend, other, late} {
			r.del(p)
			r.end(p)
		}
		n.eventually("no endpoints", func() bool { return len(n.endpoints()) == 0 })
		n.eventually("no sandboxes", func() bool {
			files, err := filepath.Glob(n.cfg.Socket + ".sandboxes/*")
			return err == nil && len(files) == 0
		})
		n.eventually("pins of a port", func() bool { return len(n.linkPins()) == 2 })
	})
}

// TestCNIResult sees what comes out of the list: what went in, also fields that
// nobody knows.
func TestCNIResult(t *testing.T) {
	needPriv(t)
	n := newNode(t, setup{})
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0"} {
		t.Run(version, func(t *testing.T) {
			r := n.newRuntime("ptp", version, "")
			p := r.sandbox("p" + strings.ReplaceAll(version, ".", "-"))
			r.declare(p, "role: friend")
			n.settle()
			alone := *r.list
			alone.Plugins = r.list.Plugins[:1]
			before, err := r.cni.AddNetworkList(t.Context(), &alone, p.rt)
			must(t, err)
			var prev map[string]any
			raw, err := json.Marshal(before)
			must(t, err)
			must(t, json.Unmarshal(raw, &prev))
			prev["x-unknown"] = map[string]any{"kept": true}
			conf := map[string]any{"cniVersion": version, "name": "pods", "type": "sluice-cni",
				"socket": n.cfg.Socket, "pinPath": n.pinPath(), "prevResult": prev}
			in, err := json.Marshal(conf)
			must(t, err)
			self, err := os.Executable()
			must(t, err)
			env := []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + p.rt.ContainerID, "CNI_NETNS=" + p.rt.NetNS,
				"CNI_IFNAME=eth0", "CNI_ARGS=K8S_POD_NAMESPACE=x;K8S_POD_NAME=" + p.name}
			for range 2 { // it may be repeated
				out, err := pluginRunner{n}.ExecPlugin(t.Context(), self, in, env)
				must(t, err)
				var got map[string]any
				must(t, json.Unmarshal(out, &got))
				a, _ := json.Marshal(prev)
				b, _ := json.Marshal(got)
				if !bytes.Equal(a, b) {
					t.Errorf("result\n%s\nwant\n%s", b, a)
				}
			}
			r.del(p)
		})
	}
}

// TestCNIErrors calls the plugin in ways that can't work.
func TestCNIErrors(t *testing.T) {
	t.Parallel()
	needPriv(t)
	n := newNode(t, setup{noAgent: true})
	r := n.newRuntime("ptp", "1.0.0", `"timeout": "500ms"`)
	p := r.sandbox("p")
	self, err := os.Executable()
	must(t, err)
	socket := fmt.Sprintf(`"socket": %q, "pinPath": %q`, n.cfg.Socket, n.pinPath())
	for _, c := range []struct {
		name, command, conf string
		code                uint
		text                string
	}{
		{"not chained", "ADD", `"cniVersion": "1.0.0", ` + socket, types.ErrInvalidNetworkConfig, "chained"},
		{"bad mode", "ADD", `"cniVersion": "1.0.0", "onAgentAway": "open"`, types.ErrInvalidNetworkConfig, `onAgentAway \"open\"`},
		{"bad timeout", "DEL", `"cniVersion": "1.0.0", "timeout": "soon"`, types.ErrInvalidNetworkConfig, "timeout"},
		{"bad socket", "ADD", `"cniVersion": "1.0.0", "socket": "x"`, types.ErrInvalidNetworkConfig, "absolute"},
		{"old version", "ADD", `"cniVersion": "0.1.0"`, types.ErrIncompatibleCNIVersion, "incompatible"},
		{"no agent", "STATUS", `"cniVersion": "1.1.0", ` + socket, 50, "no agent"},
		{"closed, no bpffs", "STATUS", `"cniVersion": "1.1.0", "onAgentAway": "closed", "pinPath": "/proc/sluice", "socket": "/no/socket"`, 51, "closed"},
		{"closed", "STATUS", `"cniVersion": "1.1.0", "onAgentAway": "closed", ` + socket, 0, ""},
		{"gone", "DEL", `"cniVersion": "1.0.0", ` + socket, 0, ""},
		{"garbage", "GC", `"cniVersion": "1.1.0", "cni.dev/valid-attachments": [], ` + socket, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := []string{"CNI_COMMAND=" + c.command, "CNI_CONTAINERID=c", "CNI_NETNS=" + p.rt.NetNS, "CNI_IFNAME=eth0"}
			_, err := pluginRunner{n}.ExecPlugin(t.Context(), self, []byte(`{"name": "pods", "type": "sluice-cni", `+c.conf+`}`), env)
			var e *types.Error
			if c.code == 0 {
				must(t, err)
			} else if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Msg+" "+e.Details, strings.ReplaceAll(c.text, `\"`, `"`)) {
				t.Errorf("%#v, want code %d and %q", err, c.code, c.text)
			}
		})
	}
	t.Run("away", func(t *testing.T) {
		r.declare(p, "role: friend")
		err := r.add(p)
		var e *types.Error
		if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || !strings.Contains(e.Msg, "no agent answers") {
			t.Errorf("%#v, want to try again later", err)
		}
	})
}

// TestCNIUnknownPod starts a pod that the API doesn't have: ADD fails in time,
// the link carries nothing, and once the pod is known it is enforced.
func TestCNIUnknownPod(t *testing.T) {
	t.Parallel()
	n := newNode(t, setup{})
	patient := n.newRuntime("ptp", "1.0.0", "")
	peer := patient.sandbox("peer")
	patient.declare(peer, "role: friend")
	patient.mustAdd(peer)
	n.serve(peer.ns, peer.v4, 80)
	p, timeout := patient.sandbox("p"), 700*time.Millisecond
	n.eventually("ADD fails in time, with the agent's reason", func() bool { // which it may be too slow for
		r := n.newRuntime("ptp", "1.0.0", fmt.Sprintf(`"timeout": %q`, timeout))
		timeout *= 2
		err := r.add(p)
		r.del(p)
		var e *types.Error
		if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater {
			t.Fatalf("%#v, want to try again later", err)
		}
		return strings.Contains(e.Details, "not known yet")
	})

	// Closed, it starts.
	closed := n.newRuntime("ptp", "1.0.0", `"timeout": "700ms", "onAgentAway": "closed"`)
	closed.mustAdd(p)
	closed.dark(&probe{proto: "tcp", from: p.ns, src: p.v4, dst: peer.v4, dport: 80},
		&probe{proto: "tcp", from: n.net.Host(), src: n.net.Config().NodeAddrs[0], dst: p.v4, dport: 80})
	closed.declare(p, "role: other")
	n.eventually("pod is enforced", func() bool {
		return closed.cni.CheckNetworkList(t.Context(), closed.list, p.rt) == nil
	})
	n.probeAll(&probe{proto: "tcp", from: p.ns, src: p.v4, dst: peer.v4, dport: 80, pass: true})
}

// TestCNIAgentAway starts a pod where no agent runs: closed, until one comes.
func TestCNIAgentAway(t *testing.T) {
	t.Parallel()
	everyPlugin(t, func(t *testing.T, plugin string) {
		n := newNode(t, setup{noAgent: true})
		r := n.newRuntime(plugin, "1.0.0", `"timeout": "700ms", "onAgentAway": "closed"`)
		a, b := r.sandbox("a"), r.sandbox("b")
		for _, p := range []*cniPod{a, b} {
			r.declare(p, "role: friend")
			r.mustAdd(p)
			n.serve(p.ns, p.v4, 80)
			n.serve(p.ns, p.v6, 80)
			must(t, r.cni.CheckNetworkList(t.Context(), r.list, p.rt))
		}
		host := n.net.Config().NodeAddrs
		r.dark(append(r.probes(a, b, 80, false),
			&probe{proto: "tcp", from: n.net.Host(), src: host[0], dst: a.v4, dport: 80},
			&probe{proto: "udp", from: n.net.Host(), src: host[1], dst: b.v6, dport: 80})...)
		for _, p := range []*cniPod{a, b} {
			r.report(p)
		}
		n.start()
		n.probeAll(append(r.probes(a, b, 80, true), r.probes(b, a, 80, true)...)...)
		for _, p := range []*cniPod{a, b} {
			r.end(p)
		}
	})
}

// TestCNINotRemembered starts pods while the agent can't keep what it is told: ADD
// fails and says why, and when it can again, all places for pods are still there.
func TestCNINotRemembered(t *testing.T) {
	t.Parallel()
	n := newNode(t, setup{change: func(c *control.Config) { c.MaxPods = 2 }})
	r := n.newRuntime("ptp", "1.0.0", "")
	dir := n.cfg.Socket + ".sandboxes"
	must(t, os.RemoveAll(dir))
	must(t, os.WriteFile(dir, nil, 0o600))
	for i := range 3 {
		p := r.sandbox(fmt.Sprint("p", i))
		r.declare(p, "role: friend")
		err := r.add(p)
		var e *types.Error
		if !errors.As(err, &e) || e.Code != types.ErrTryAgainLater || !strings.Contains(e.Msg, "agent can't serve") || !strings.Contains(e.Details, "remember sandbox c-p") {
			t.Errorf("%#v, want to try again later, and why", err)
		}
		r.end(p)
	}
	must(t, os.Remove(dir))
	p := r.sandbox("p")
	r.declare(p, "role: friend")
	r.mustAdd(p)
}
