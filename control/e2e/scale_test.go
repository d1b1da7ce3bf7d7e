package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
)

// scale is the size of a cluster that the control loop is measured in. What is
// asserted is that all of it works; figures are told, not judged: they depend
// on the machine. SLUICE_SCALE=full measures what is promised, and
// SLUICE_SCALE=2000,400,250,100 a scale of one's own: so many pods, policies, pods
// of the node, and samples.
type scale struct{ pods, policies, local, samples int }

func scaleOf(small, full scale) scale {
	switch text := os.Getenv("SLUICE_SCALE"); {
	case text == "full":
		return full
	case text != "":
		var c scale
		if _, err := fmt.Sscanf(text, "%d,%d,%d,%d", &c.pods, &c.policies, &c.local, &c.samples); err != nil {
			panic(fmt.Sprintf("SLUICE_SCALE %q: %v", text, err))
		}
		return c
	}
	return small
}

// watchman sends a datagram after the other between two pods, and notes when
// one arrives.
type watchman struct {
	*node
	first, last atomic.Int64 // arrivals since armed, in ns of the wall clock
	sent        atomic.Uint64
}

const watchmanPort = 4000

func (n *node) watch(from, to *pod) *watchman {
	n.Helper()
	w := &watchman{node: n}
	var in, out *net.UDPConn
	must(n.T, to.Namespace().Do(func() (err error) {
		in, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at(to.v4, watchmanPort)))
		return err
	}))
	must(n.T, from.Namespace().Do(func() (err error) {
		out, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(at(from.v4, watchmanPort)), net.UDPAddrFromAddrPort(at(to.v4, watchmanPort)))
		return err
	}))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.Tick(500 * time.Microsecond); ; {
			select {
			case <-stop:
				return
			case <-tick:
				if _, err := out.Write([]byte("x")); err == nil {
					w.sent.Add(1)
				}
			}
		}
	})
	wg.Go(func() {
		buf := make([]byte, 16)
		for {
			if _, err := in.Read(buf); err != nil {
				return
			}
			now := time.Now().UnixNano()
			w.first.CompareAndSwap(0, now)
			w.last.Store(now)
		}
	})
	n.Cleanup(func() { close(stop); in.Close(); out.Close(); wg.Wait() })
	return w
}

// opens returns how long after do returned the first datagram arrived, none of
// which did before.
func (w *watchman) opens(do func()) time.Duration {
	w.Helper()
	w.first.Store(0)
	do()
	began := time.Now()
	w.eventually("let through", func() bool { return w.first.Load() != 0 })
	return max(0, time.Unix(0, w.first.Load()).Sub(began))
}

// closes returns how long after do returned the last datagram arrived.
func (w *watchman) closes(do func()) time.Duration {
	w.Helper()
	do()
	began := time.Now()
	w.eventually("held back", func() bool {
		sent := w.sent.Load()
		time.Sleep(40 * time.Millisecond)
		return w.sent.Load() > sent+20 && time.Since(time.Unix(0, w.last.Load())) > 30*time.Millisecond
	})
	return max(0, time.Unix(0, w.last.Load()).Sub(began))
}

// figures describes how long something took.
func figures(what string, took []time.Duration) string {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	return fmt.Sprintf("%s: p50 %.1f ms, p99 %.1f ms, most %.1f ms, of %d", what, ms(took[len(took)/2]), ms(took[len(took)*99/100]), ms(took[len(took)-1]), len(took))
}

// allowFriend is a policy that lets the friend in.
func allowFriend(i int) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: fmt.Sprintf("allow-%d", i)},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "friend"}}}}}}}}
}

// latencies creates and deletes a policy again and again.
func (w *watchman) latencies(samples int, create, remove func(*networkingv1.NetworkPolicy)) {
	var open, shut []time.Duration
	for i := range samples {
		open = append(open, w.opens(func() { create(allowFriend(i)) }))
		shut = append(shut, w.closes(func() { remove(allowFriend(i)) }))
	}
	w.Log(figures("policy created to packets let through", open))
	w.Log(figures("policy deleted to packets denied", shut))
}

// remember logs what an agent's memory is.
func (n *node) remember(when string) {
	n.Helper()
	all, anonymous, err := kubetest.RSS(n.agent.cmd.Process.Pid)
	must(n.T, err)
	s := n.status()
	n.Logf("%s: %d MB resident, %d MB of it anonymous; %d MB of objects, %d goroutines; %d pods, %d policies, %d identities, %d endpoints, generation %d",
		when, all>>20, anonymous>>20, s.HeapBytes>>20, s.Goroutines, s.Objects.Pods, s.Objects.Policies, s.Objects.Identities, s.Endpoints, s.Generation)
}

// scaled is a Population of a scale, with its local pods' share made by crowd.
func scaled(c scale) kubetest.Population {
	return kubetest.Population{Namespaces: max(c.pods/100, 5), Apps: 10, PodsPerNode: 200, Node: "node"}
}

// crowd plugs local pods in: of namespace x, with the labels of apps.
func (n *node) crowd(count int) (pods []*pod) {
	n.Helper()
	for i := range count {
		p := &pod{name: fmt.Sprintf("crowd-%d", i), labels: fmt.Sprintf("app: app-%d, version: v%d", i%10, i%3),
			v4: netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", 3+i/200, 10+i%200)), v6: netip.MustParseAddr(fmt.Sprintf("fd00:1::2:%x", 0x10+i))}
		var err error
		p.Pod, err = n.net.AddPod("x/"+p.name, []netip.Addr{p.v4, p.v6})
		must(n.T, err)
		pods = append(pods, p)
	}
	return pods
}

// object is the pod as the API has it.
func (p *pod) object() *corev1.Pod {
	o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: p.name, UID: types.UID(p.name), Labels: map[string]string{}},
		Spec:   corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending}}
	if p.v4.IsValid() {
		o.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: p.v4.String(), PodIPs: []corev1.PodIP{{IP: p.v4.String()}, {IP: p.v6.String()}}}
	}
	for pair := range strings.SplitSeq(p.labels, ", ") {
		k, v, _ := strings.Cut(pair, ": ")
		o.Labels[k] = v
	}
	return o
}

// TestScale follows a simulated server that holds a large cluster.
func TestScale(t *testing.T) {
	c := scaleOf(scale{2000, 400, 10, 5}, scale{50000, 10000, 250, 200})
	n := newNode(t, setup{noAgent: true, change: func(c *control.Config) { c.MaxPods = 2047 }})
	host := n.net.Host()
	var l net.Listener
	must(t, host.Do(func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	}))
	server, pop := kubetest.Simulate(t, l), scaled(c)
	for i := range pop.Namespaces {
		server.Set(pop.Namespace(i, 0))
	}
	for i := range c.pods {
		server.Set(pop.Pod(i, 0))
	}
	for i := range c.policies {
		server.Set(pop.Policy(i, 0))
	}
	x := pop.Namespace(0, 0)
	x.Name, x.Labels = "x", map[string]string{"kubernetes.io/metadata.name": "x", "team": "team-1"}
	server.Set(x)
	put := func(pods ...*pod) {
		for _, p := range pods {
			server.Set(p.object())
		}
	}
	s := &pod{name: "server", labels: "app: server", v4: netip.MustParseAddr("10.0.1.11"), v6: netip.MustParseAddr("fd00:1::11")}
	f := &pod{name: "friend", labels: "role: friend", v4: netip.MustParseAddr("10.0.1.12"), v6: netip.MustParseAddr("fd00:1::12")}
	for _, p := range []*pod{s, f} {
		var err error
		p.Pod, err = n.net.AddPod("x/"+p.name, []netip.Addr{p.v4, p.v6})
		must(t, err)
	}
	put(s, f)
	put(n.crowd(c.local)...)
	for i := range 20 { // policies of the local pods
		np := pop.Policy(i*pop.Namespaces, 0)
		np.Namespace, np.Name = "x", fmt.Sprintf("x-%d", i)
		server.Set(np)
	}
	deny := allowFriend(0)
	deny.Name, deny.Spec.Ingress = "isolate", nil
	server.Set(deny)

	n.cfg.Kubeconfig, n.cfg.Report = server.Kubeconfig(), false
	n.readyWith(c.local + 2)
	n.remember("at first")
	w := n.watch(f, s)
	w.closes(func() {}) // isolated
	w.latencies(c.samples, func(p *networkingv1.NetworkPolicy) { server.Set(p) }, func(p *networkingv1.NetworkPolicy) { server.Delete(p) })
	n.eventually("all policies but the friend's", func() bool { return len(n.policies()) == c.policies+20+1 })
	n.remember("at last")
	n.starts(c.samples, "tcx", func(p *cniPod) { server.Set(p.object()) })
	n.cfg.Clsact = true
	n.signal(unix.SIGTERM)
	n.readyWith(c.local + 2 + 2*c.samples)
	n.starts(c.samples, "clsact", func(p *cniPod) { server.Set(p.object()) })
}

// readyWith starts an agent and waits until it enforces so many pods' policies.
func (n *node) readyWith(endpoints int) {
	n.Helper()
	began := time.Now()
	n.launch()
	for {
		s, err := n.api.Status(n.Context())
		if err == nil && s.Ready && s.Endpoints == endpoints {
			break
		}
		if time.Since(began) > 3*time.Minute {
			n.Fatalf("agent is not ready: %+v, %v", s, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.Logf("agent ready after %.1f s, with %d pods of its own", time.Since(began).Seconds(), endpoints)
}

// atOnce is how many pods a busy node starts at a time.
const atOnce = 8

// starts starts pods by a real list of CNI plugins: one after the other, then
// several at a time.
func (n *node) starts(count int, how string, declare func(*cniPod)) {
	n.Helper()
	r := n.newRuntime("ptp", "1.0.0", `"timeout": "20s"`)
	for _, several := range []int{1, atOnce} {
		pods := make(chan *cniPod, count)
		for i := range count {
			p := r.sandbox(fmt.Sprintf("%s-%d-%d", how, several, i))
			p.labels = fmt.Sprintf("app: app-%d, version: v%d", i%10, i%3)
			declare(p)
			pods <- p
		}
		close(pods)
		logged := len(n.agent.log.String())
		var mu sync.Mutex
		var wg sync.WaitGroup
		var whole, agents []time.Duration
		for range several {
			wg.Go(func() {
				for p := range pods {
					began := time.Now()
					if err := r.add(p); err != nil {
						n.Errorf("ADD of %s: %v", p.name, err)
						return
					}
					mu.Lock()
					whole = append(whole, time.Since(began))
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		n.eventually("all pods are said to be enforced", func() bool {
			agents = agents[:0]
			for line := range strings.Lines(n.agent.log.String()[logged:]) {
				_, text, ok := strings.Cut(strings.TrimSpace(line), " took=")
				if ok && strings.Contains(line, "sandbox enforced") && strings.HasSuffix(line, "\n") {
					d, err := time.ParseDuration(text)
					must(n.T, err)
					agents = append(agents, d)
				}
			}
			return len(agents) >= count || n.Failed()
		})
		if len(agents) != count || n.Failed() {
			n.Fatalf("%d of %d pods enforced", len(agents), count)
		}
		n.Log(figures(fmt.Sprintf("%s, %d at a time: agent told of a pod's link to its policy in force", how, several), agents))
		n.Log(figures(fmt.Sprintf("%s, %d at a time: ADD of the whole list, all plugins' processes included", how, several), whole))
	}
}

func (n *node) policies() []api.Policy {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	all, err := n.api.Policies(ctx, api.Which{})
	must(n.T, err)
	return all
}

// TestClusterLatency creates policies in a real API server.
func TestClusterLatency(t *testing.T) {
	c := scaleOf(scale{200, 100, 0, 5}, scale{5000, 1000, 0, 200})
	n := newNode(t, setup{cluster: true})
	pop := scaled(c)
	k, _ := n.cluster.Client()
	ctx := n.Context()
	each(n, pop.Namespaces, func(i int) error {
		_, err := k.CoreV1().Namespaces().Create(ctx, pop.Namespace(i, 0), metav1.CreateOptions{})
		return err
	})
	each(n, c.pods, func(i int) error {
		p := pop.Pod(i, 0)
		p.UID, p.OwnerReferences = "", nil
		made, err := k.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		made.Status = pop.Pod(i, 0).Status
		_, err = k.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{})
		return err
	})
	each(n, c.policies, func(i int) error {
		p := pop.Policy(i, 0)
		_, err := k.NetworkingV1().NetworkPolicies(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	server, friend := n.addPod("server", 1, "app: server"), n.addPod("friend", 2, "role: friend")
	n.policy("isolate", isolate)
	n.settle()
	w := n.watch(friend, server)
	w.closes(func() {})
	policies := k.NetworkingV1().NetworkPolicies("x")
	w.latencies(c.samples, func(p *networkingv1.NetworkPolicy) {
		_, err := policies.Create(ctx, p, metav1.CreateOptions{})
		must(t, err)
	}, func(p *networkingv1.NetworkPolicy) { must(t, policies.Delete(ctx, p.Name, metav1.DeleteOptions{})) })
	n.remember(fmt.Sprintf("%d pods and %d policies of a real server", c.pods, c.policies))
}

// each does something for 0 to count, a few at a time.
func each(n *node, count int, do func(int) error) {
	n.Helper()
	var wg sync.WaitGroup
	next := atomic.Int64{}
	for range 16 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					n.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n.Failed() {
		n.FailNow()
	}
}
