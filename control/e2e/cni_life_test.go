package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/link"
)

// podsVar is how many pods TestCNIManyPods starts and stops in all.
const podsVar = "SLUICE_E2E_PODS"

// timedRunner notes how long Sluice's own plugin took for ADD.
type timedRunner struct {
	pluginRunner
	self string

	mu   sync.Mutex
	took []time.Duration
}

func (r *timedRunner) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	began := time.Now()
	out, err := r.pluginRunner.ExecPlugin(ctx, path, stdin, env)
	if path == r.self && slices.Contains(env, "CNI_COMMAND=ADD") {
		r.mu.Lock()
		r.took = append(r.took, time.Since(began))
		r.mu.Unlock()
	}
	return out, err
}

// TestCNIManyPods starts and stops pods one after another while a crowd is
// there, and the addresses of the gone are given to others. Every new pod's
// policy is in force when it starts, no other flow notices, nothing is left.
func TestCNIManyPods(t *testing.T) {
	total := 40
	if s := os.Getenv(podsVar); s != "" {
		var err error
		total, err = strconv.Atoi(s)
		must(t, err)
	}
	crowd := min(total/2, 250)
	t.Parallel()
	n := newNode(t, setup{})
	r := n.newRuntime("ptp", "1.0.0", "")
	self, err := os.Executable()
	must(t, err)
	timed := &timedRunner{pluginRunner: pluginRunner{n}, self: self}
	r.runBy(timed)
	n.policy("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
		"- from: [{podSelector: {matchLabels: {role: friend}}}]")
	n.settle()
	server, friend := r.sandbox("server"), r.sandbox("friend")
	r.declare(server, "app: server")
	r.declare(friend, "role: friend")
	r.mustAdd(server)
	r.mustAdd(friend)
	n.serve(server.ns, server.v4, 80)
	n.serve(server.ns, server.v6, 80)
	r.report(server)
	r.report(friend)
	steady := n.stream(friend.ns, friend.v4, server.v4, 80)
	steady.flows()
	began := steady.mark()

	var alive []*cniPod
	for i := range total {
		if len(alive) >= crowd {
			r.end(alive[0])
			alive = alive[1:]
			if len(alive) == crowd-1 && i == crowd {
				timed.took = nil // measured beside a crowd
			}
		}
		p := r.sandbox(fmt.Sprint("p", i))
		labels := "role: friend"
		if i%2 == 1 {
			labels = "role: stranger"
		}
		r.declare(p, labels)
		if i >= crowd {
			n.settle() // as a kubelet, which knows the pod from the API
		}
		r.mustAdd(p)
		if i%2 == 0 {
			r.report(p)
		}
		if i%20 < 2 { // at once, as a pod's first process would
			family := 4 + 2*(i/20%2)
			want := i%2 == 0
			res, err := p.ns.ProbeUDP(t.Context(), at(p.addr(family), n.port()), at(server.addr(family), 80))
			if err != nil || res.Passed != want {
				t.Errorf("pod %d (%s): passed %v, %v, want %v", i, labels, res.Passed, err, want)
			}
		}
		alive = append(alive, p)
	}
	for _, p := range alive {
		r.end(p)
	}
	steady.intact("while pods came and went", began)
	n.eventually("two endpoints", func() bool { return len(n.endpoints()) == 2 })
	n.eventually("pins of two pods and a port", func() bool { return len(n.linkPins()) == 2*2+2 })
	spaces, err := netlab.Namespaces(netlab.Prefix(n.net.Config().Name) + "x.p")
	must(t, err)
	if len(spaces) > 0 {
		t.Errorf("sandboxes left: %v", spaces)
	}
	n.logTimes("sluice-cni ADD, its process included", crowd, timed.took)
	n.logTimes("from the agent's being told to rules in force", crowd, agentTimes(t, n.agent.log.String(), len(timed.took)))
}

func (n *node) logTimes(what string, crowd int, took []time.Duration) {
	slices.Sort(took)
	if k := len(took); k > 0 {
		n.Logf("%s, beside %d pods, %d times: p50 %v, p99 %v, max %v", what, crowd, k, took[k/2], took[k*99/100], took[k-1])
	}
}

// agentTimes reads the last times from an agent's log.
func agentTimes(t *testing.T, log string, last int) (took []time.Duration) {
	for _, m := range regexp.MustCompile(`sandbox enforced.* took=(\S+)`).FindAllStringSubmatch(log, -1) {
		d, err := time.ParseDuration(m[1])
		must(t, err)
		took = append(took, d)
	}
	return took[max(0, len(took)-last):]
}

// TestCNIRecreated starts a pod again while its old sandbox is still there: the
// new one is enforced by what the new pod is, the old one reaches nothing.
func TestCNIRecreated(t *testing.T) {
	t.Parallel()
	everyPlugin(t, func(t *testing.T, plugin string) {
		n := newNode(t, setup{})
		r := n.newRuntime(plugin, "1.0.0", "")
		n.policy("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
			"- from: [{podSelector: {matchLabels: {role: friend}}}]")
		n.settle()
		server, old := r.sandbox("server"), r.sandbox("web-0")
		r.declare(server, "app: server")
		r.mustAdd(server)
		n.serve(server.ns, server.v4, 80)
		r.report(server)
		r.declare(old, "role: friend")
		r.mustAdd(old)
		r.report(old)
		n.settle()
		bystander := r.sandbox("bystander")
		r.declare(bystander, "role: stranger")
		r.mustAdd(bystander)
		for _, p := range []*cniPod{old, bystander} {
			n.serve(p.ns, p.v4, 80)
		}
		n.probeAll(r.probes(old, server, 80, true)[0], r.probes(old, bystander, 80, true)[0], r.probes(bystander, old, 80, true)[0])

		// Its successor has its name, another UID, other labels.
		fresh := r.sandbox("web-0b")
		fresh.name = "web-0"
		fresh.rt.Args[2][1], fresh.rt.Args[3][1] = "web-0", "second"
		r.declare(fresh, "role: stranger")
		r.mustAdd(fresh)
		n.probeAll(r.probes(fresh, server, 80, false, "server")[0])
		r.report(fresh)
		n.settle()
		n.probeAll(r.probes(fresh, server, 80, false, "server")[0])
		r.dark(r.probes(old, server, 80, false)[0], r.probes(old, bystander, 80, false)[0], r.probes(bystander, old, 80, false)[0])

		// And again, now a friend; the old sandbox goes at last.
		fresh.labels = "role: friend"
		r.report(fresh)
		n.settle()
		r.del(old)
		must(t, netlab.DeleteNamespace(old.ns.Name()))
		n.probeAll(r.probes(fresh, server, 80, true)[0])
		must(t, r.cni.CheckNetworkList(t.Context(), r.list, fresh.rt))
		r.end(fresh)
		n.eventually("two endpoints", func() bool { return len(n.endpoints()) == 2 })
		n.eventually("pins of two pods and a port", func() bool { return len(n.linkPins()) == 2*2+2 })
	})
}

// TestCNIQuiet starts pods that no policy concerns: the rules of others stay what
// they are, so that no flow is judged anew.
func TestCNIQuiet(t *testing.T) {
	t.Parallel()
	everyPlugin(t, func(t *testing.T, plugin string) {
		n := newNode(t, setup{})
		r := n.newRuntime(plugin, "1.0.0", "")
		n.policy("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
			"- from: [{podSelector: {matchLabels: {role: friend}}}]")
		server := r.sandbox("server")
		r.declare(server, "app: server")
		r.mustAdd(server)
		r.hasLocal(server)
		n.settle()
		generation := func() uint32 {
			t.Helper()
			for _, ep := range n.endpoints() {
				if ep.Pod == "server" {
					return ep.Generation
				}
			}
			t.Fatal("server is no endpoint")
			return 0
		}
		before := generation()
		for i := range 3 {
			p := r.sandbox(fmt.Sprint("p", i))
			r.declare(p, "role: stranger")
			r.mustAdd(p)
			r.hasLocal(p)
			n.policy(fmt.Sprint("other-", i), "podSelector: {matchLabels: {app: none}}") // looked at later
			n.settle()
		}
		if now := generation(); now != before {
			t.Errorf("rules of the server: generation %d, was %d before others started", now, before)
		}
	})
}

// hasLocal waits until the host's end of a pod's link has its link-local address.
func (r *containerRuntime) hasLocal(p *cniPod) {
	r.Helper()
	r.eventually("link-local address of "+p.host, func() (has bool) {
		must(r.T, r.net.Host().Do(func() error {
			l, err := netlink.LinkByName(p.host)
			if err != nil {
				return err
			}
			addrs, err := link.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V6) })
			has = slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
				return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
			})
			return err
		}))
		return has
	})
}

// tell tells the agent of a pod's link, as a CNI plugin does.
func (n *node) tell(p *pod) {
	n.Helper()
	sb := api.Sandbox{Attachment: api.Attachment{ContainerID: "c-" + p.name, IfName: "eth0"}, Namespace: "x", Pod: p.name, UID: p.name,
		Addresses: []netip.Addr{p.v4, p.v6}, Link: p.Link(), Ifindex: n.ifindex(p), TimeoutMs: patience.Milliseconds()}
	must(n.T, p.Namespace().Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err == nil {
			sb.MAC = eth0.Attrs().HardwareAddr.String()
		}
		return err
	}))
	_, err := n.api.AddSandbox(n.Context(), sb)
	must(n.T, err)
}

func (n *node) ifindex(p *pod) (index int) {
	n.Helper()
	must(n.T, n.net.Host().Do(func() error {
		l, err := netlink.LinkByName(p.Link())
		if err == nil {
			index = l.Attrs().Index
		}
		return err
	}))
	return index
}

// TestCNITwice tells twice of the link of a pod that has another UID in its
// sandbox than in the API, as static pods do: policy is in force each time.
func TestCNITwice(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{})
	static := n.addPod("static", 4, "role: friend")
	n.write("pod-static", strings.Replace(n.manifests["pod-static"], "uid: static, ", "", 1))
	n.settle()
	for range 2 {
		n.tell(static)
		n.probeAll(all(static, n.server, 80, true)...)
	}
	if eps := n.endpoints(); len(eps) != 4 {
		t.Errorf("%d endpoints", len(eps))
	}
}
