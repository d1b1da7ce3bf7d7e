package deploytest_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/tools/connectivity"
)

// kubelet runs the pods of one namespace: it binds them to the node, makes their
// network, runs their containers, and reports them as ready. It is kube-proxy as
// well.
type kubelet struct {
	*node
	k         kubernetes.Interface
	namespace string

	mu   sync.Mutex
	pods map[types.UID]*running
	ids  map[string]string // of containers, by pod
	next int
	nat  bool
}

// run looks at the API until ctx ends.
func (k *kubelet) run(ctx context.Context) {
	for ctx.Err() == nil {
		list, err := k.k.CoreV1().Pods(k.namespace).List(ctx, metav1.ListOptions{})
		if err == nil {
			k.sync(ctx, list.Items)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (k *kubelet) sync(ctx context.Context, list []corev1.Pod) {
	there := map[types.UID]bool{}
	for i := range list {
		p := &list[i]
		there[p.UID] = true
		if k.pods[p.UID] != nil {
			continue
		}
		if err := k.startPod(ctx, p); err != nil && ctx.Err() == nil {
			k.Errorf("start pod %s: %v", p.Name, err)
			return
		}
	}
	for uid, r := range k.pods {
		if !there[uid] {
			k.kill(r, 9)
			delete(k.pods, uid)
		}
	}
	svc, err := k.k.CoreV1().Services(k.namespace).Get(ctx, connectivity.Server, metav1.GetOptions{})
	if err == nil && !k.nat {
		k.nat = true
		k.proxy(svc)
	}
}

func (k *kubelet) startPod(ctx context.Context, p *corev1.Pod) error {
	if p.Spec.NodeName == "" {
		err := k.k.CoreV1().Pods(k.namespace).Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: p.Name},
			Target: corev1.ObjectReference{Kind: "Node", Name: nodeName}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	addrs, network := k.net.Config().NodeAddrs, k.net.Host()
	if !p.Spec.HostNetwork {
		k.next++
		addrs = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.2.%d", 10+k.next)), netip.MustParseAddr(fmt.Sprintf("fd00:2::%x", 0x10+k.next))}
		pod, err := k.net.AddPod(k.namespace+"/"+p.Name, addrs)
		if err != nil {
			return err
		}
		network = pod.Namespace()
	}
	r := k.startIn(&p.Spec, p.Spec.Containers[0].Name, network)
	k.mu.Lock()
	k.pods[p.UID], k.ids[p.Name] = r, r.id
	k.mu.Unlock()
	status := fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q},{"ip":%q}],"conditions":[{"type":"Ready","status":"True"}]}}`, addrs[0], addrs[0], addrs[1])
	_, err := k.k.CoreV1().Pods(k.namespace).Patch(ctx, p.Name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	return err
}

// proxy translates the Service's addresses to the server's.
func (k *kubelet) proxy(svc *corev1.Service) {
	rules := "table inet services {\n chain services {\n"
	server := map[bool]netip.Addr{}
	list, err := k.k.CoreV1().Pods(k.namespace).List(k.Context(), metav1.ListOptions{LabelSelector: "name=" + connectivity.Server})
	if err != nil || len(list.Items) != 1 || len(list.Items[0].Status.PodIPs) != 2 {
		k.nat = false // not yet
		return
	}
	for _, ip := range list.Items[0].Status.PodIPs {
		a := netip.MustParseAddr(ip.IP)
		server[a.Is4()] = a
	}
	for _, ip := range svc.Spec.ClusterIPs {
		a := netip.MustParseAddr(ip)
		proto, to := "ip", netip.AddrPortFrom(server[a.Is4()], 8080)
		if a.Is6() {
			proto = "ip6"
		}
		rules += fmt.Sprintf("  %s daddr %s tcp dport %d dnat %s to %s\n", proto, a, svc.Spec.Ports[0].Port, proto, to)
	}
	rules += " }\n chain prerouting { type nat hook prerouting priority dstnat; jump services; }\n chain output { type nat hook output priority -100; jump services; }\n}\n"
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := k.net.Host().Run(cmd); err != nil {
		k.Errorf("nft: %v: %s: %s", err, out.String(), rules)
	}
}

// exec is what the API's exec subresource does on a node.
func (k *kubelet) exec(ctx context.Context, namespace, pod string, command []string) ([]byte, error) {
	k.mu.Lock()
	id := k.ids[pod]
	k.mu.Unlock()
	out, err := k.crun(append([]string{"exec", id}, command...)...).Output()
	if err != nil {
		var said string
		if x, ok := err.(*exec.ExitError); ok {
			said = string(x.Stderr)
		}
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	return out, ctx.Err()
}

// TestConnectivity runs the connectivity test against a cluster whose node runs
// the agent of the manifests: all is as it should be, and nothing is left. The
// pods are its own manifest's, from the image; commands are executed in them by
// the runtime.
func TestConnectivity(t *testing.T) {
	n := newNode(t)
	world := []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8:7::7")}
	names := []netip.Addr{netip.MustParseAddr("10.0.1.53"), netip.MustParseAddr("fd00:1::53")}
	outside, err := n.net.AddExternal(world...)
	must(t, err)
	dns, err := n.net.AddPod("kube-system/dns", names)
	must(t, err)
	opts := connectivity.DefaultClusterOptions()
	opts.World = nil
	conf := "search " + opts.Namespace + ".svc.cluster.local svc.cluster.local\noptions ndots:5\n"
	for i := range world {
		c, err := outside.Namespace().EchoTCP(netip.AddrPortFrom(world[i], 443))
		must(t, err)
		t.Cleanup(func() { c.Close() })
		d, err := connectivity.ServeNames(dns.Namespace(), netip.AddrPortFrom(names[i], 53))
		must(t, err)
		t.Cleanup(func() { d.Close() })
		opts.World = append(opts.World, netip.AddrPortFrom(world[i], 443))
		conf += "nameserver " + names[i].String() + "\n"
	}
	n.resolvConf = filepath.Join(n.folder(map[string]string{"resolv.conf": conf}), "resolv.conf")
	k, _ := n.cluster.Client()
	kl := &kubelet{node: n, k: k, namespace: opts.Namespace, pods: map[types.UID]*running{}, ids: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		kl.run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	opts.REST, opts.Exec, opts.Say = n.cluster.Config(kubetest.AdminToken), kl.exec, func(s string) { t.Log(s) }

	n.start(&n.daemons.Spec.Template.Spec, "agent")
	eventually(t, "agent is ready", func() bool { s, ok := n.status(); return ok && s.Ready })
	target, err := connectivity.NewCluster(ctx, opts)
	must(t, err)
	report, err := connectivity.Run(ctx, target, nil, func(stage string, done, of, failed int) { t.Logf("[%d/%d] %s (%d)", done, of, stage, failed) })
	must(t, err)
	must(t, target.Close())
	n.gone(k, opts.Namespace)
	for _, r := range report.Results {
		if !r.OK || r.Got == "skipped" {
			t.Errorf("%s: %s → %s over IPv%d: %s, want %s: %s", r.Stage, r.From, r.To, r.Family, r.Got, r.Want, r.Detail)
		}
	}
	if want := 20 * len(connectivity.Stages()); report.Passed != want {
		t.Errorf("%d passed, want %d", report.Passed, want)
	}
}

// gone looks that a run has left no object. The namespace goes with the
// controller that this cluster doesn't have; it is terminating.
func (n *node) gone(k kubernetes.Interface, namespace string) {
	n.Helper()
	ctx := n.Context()
	pods, err := k.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	must(n, err)
	services, err := k.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
	must(n, err)
	policies, err := k.NetworkingV1().NetworkPolicies(namespace).List(ctx, metav1.ListOptions{})
	must(n, err)
	if len(pods.Items)+len(services.Items)+len(policies.Items) > 0 {
		n.Errorf("left: %d pods, %d services, %d policies", len(pods.Items), len(services.Items), len(policies.Items))
	}
	ns, err := k.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err == nil && ns.DeletionTimestamp == nil {
		n.Error("the namespace stays")
	}
}
