package e2e_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// startCluster runs an API server in the node's namespace, where the agent
// reaches it, and has the agent follow it.
func (n *node) startCluster() {
	n.Helper()
	host := n.net.Host()
	n.cluster = kubetest.Start(n.T, kubetest.Options{Enter: host.Enter, Dial: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = host.Do(func() (err error) {
			var d net.Dialer
			c, err = d.DialContext(ctx, network, address)
			return err
		})
		return c, err
	}})
	n.cfg.Kubeconfig = n.cluster.Kubeconfig(kubetest.AdminToken, "")
}

// labelInCluster writes the pod, and its status as a kubelet does.
func (n *node) labelInCluster(p *pod) {
	n.Helper()
	n.write("pod-"+p.name, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: x, labels: {%s}}
spec: {nodeName: node, containers: [{name: c, image: none}]}
`, p.name, p.labels))
	status := fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q},{"ip":%q}]}}`, p.v4, p.v4, p.v6)
	k, _ := n.cluster.Client()
	_, err := k.CoreV1().Pods("x").Patch(n.Context(), p.name, types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status")
	must(n.T, err)
}

// settleCluster waits until the agent has put into force what the server holds:
// a watch delivers in order, so all of a resource up to a mark is in force if
// the mark is. Marks are a pod and a policy that concern nothing.
func (n *node) settleCluster() {
	n.Helper()
	mark := func(doc string) uint64 {
		u, err := n.cluster.Try(strings.ReplaceAll(doc, "MARK", strconv.FormatInt(time.Now().UnixNano(), 10)))
		must(n.T, err)
		v, err := strconv.ParseUint(u.GetResourceVersion(), 10, 64)
		must(n.T, err)
		return v
	}
	want := map[string]uint64{
		"pods": mark("apiVersion: v1\nkind: Pod\nmetadata: {name: mark, namespace: x, annotations: {mark: 'MARK'}}\nspec: {nodeName: other, containers: [{name: c, image: none}]}\n"),
	}
	var s api.Status
	n.eventually("the cluster's policies in force", func() bool {
		// A change of a policy has the agent look at everything.
		last := mark("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: mark, namespace: x, annotations: {mark: 'MARK'}}\nspec: {podSelector: {matchLabels: {none: none}}}\n")
		if want["networkpolicies"] == 0 {
			want["networkpolicies"] = last
		}
		time.Sleep(10 * time.Millisecond)
		ctx, cancel := context.WithTimeout(n.Context(), patience)
		defer cancel()
		var err error
		s, err = n.api.Status(ctx)
		if err != nil || !s.Ready {
			return false
		}
		reached := 0
		for word := range strings.FieldsSeq(s.Digest) {
			resource, version, _ := strings.Cut(word, "=")
			if v, err := strconv.ParseUint(version, 10, 64); err == nil && want[resource] > 0 && v >= want[resource] {
				reached++
			}
		}
		return reached == len(want)
	})
}

// TestCluster changes pods and policies in an API server, as kubectl does, and
// looks after each step at what arrives.
func TestCluster(t *testing.T) {
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, setup{shape: shape, cluster: true})
			server := n.addPod("server", 1, "app: server")
			friend := n.addPod("friend", 2, "role: friend")
			other := n.addPod("other", 3, "role: other")
			n.serveBoth(server, 80)
			n.serveBoth(server, 81)
			step := func(what string, friend80, friend81, other80 bool) {
				t.Helper()
				n.settle()
				var probes []*probe
				for _, c := range []struct {
					from *pod
					port uint16
					pass bool
				}{{friend, 80, friend80}, {friend, 81, friend81}, {other, 80, other80}} {
					var why []string
					if !c.pass && !strings.Contains(what, "cluster-wide") {
						why = []string{"default-deny"}
					}
					probes = append(probes, all(c.from, server, c.port, c.pass, why...)...)
				}
				n.probeAll(probes...)
				if t.Failed() {
					t.Fatalf("after: %s", what)
				}
			}
			step("nothing", true, true, true)
			n.policy("default-deny", isolate)
			step("created a policy that isolates", false, false, false)
			n.policy("friends", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
			step("created a policy that allows", true, false, false)
			n.label(other, "role: friend")
			step("labelled a pod", true, false, true)
			n.label(other, "role: other")
			step("labelled it back", true, false, false)
			n.policy("friends", allowFrom("role: friend", "[{port: 81, protocol: TCP}, {port: 81, protocol: UDP}]"))
			step("changed the port", false, true, false)
			n.write("guard-definition", cnpDefinition)
			n.write("guard", clusterWide)
			n.eventually("definition followed", func() bool { return strings.Contains(n.status().Digest, "clusternetworkpolicies") })
			n.settle()
			n.eventually("cluster-wide denial", func() bool { // silence alone may be slowness
				n.refusedAt(friend, server, 81)
				_, denied := n.find(func(f *api.Flow) bool {
					return f.Event == "denied" && slices.ContainsFunc(f.DecidedBy, func(r rule.PolicyRef) bool { return r.Name == "guard" })
				})
				return denied
			})
			step("cluster-wide denial", false, false, false)
			n.remove("guard")
			n.eventually("cluster-wide denial gone", func() bool { return !n.refusedAt(friend, server, 81) })
			step("deleted it", false, true, false)
			n.remove("policy-default-deny")
			n.remove("policy-friends")
			step("deleted all policies", true, true, true)
		})
	}
}

// cnpDefinition is as much of ClusterNetworkPolicy's definition as is needed.
const cnpDefinition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusternetworkpolicies.policy.networking.k8s.io
  annotations: {api-approved.kubernetes.io: unapproved}
spec:
  group: policy.networking.k8s.io
  names: {kind: ClusterNetworkPolicy, listKind: ClusterNetworkPolicyList, plural: clusternetworkpolicies, singular: clusternetworkpolicy}
  scope: Cluster
  versions:
  - name: v1alpha2
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

const clusterWide = `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 1
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: server}}}}
  ingress: [{name: none, action: Deny, from: [{namespaces: {}}]}]
`

// refusedAt tries a connection once.
func (n *node) refusedAt(from, to *pod, port uint16) bool {
	for family := range 2 {
		var c net.Conn
		err := from.Namespace().Do(func() (err error) {
			d := net.Dialer{Timeout: 200 * time.Millisecond}
			c, err = d.Dial("tcp", net.JoinHostPort(to.addr([]int{4, 6}[family]).String(), strconv.Itoa(int(port))))
			return err
		})
		if err == nil {
			c.Close()
			return false
		}
	}
	return true
}

// TestClusterAway takes the API server away: what was in force stays, also for
// new connections, and what has changed meanwhile comes into force after.
func TestClusterAway(t *testing.T) {
	n := newNode(t, setup{cluster: true})
	server := n.addPod("server", 1, "app: server")
	friend := n.addPod("friend", 2, "role: friend")
	other := n.addPod("other", 3, "role: other")
	n.serveBoth(server, 80)
	n.policy("default-deny", isolate)
	n.policy("friends", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
	n.settle()
	n.probeAll(append(all(friend, server, 80, true), all(other, server, 80, false, "default-deny")...)...)

	n.cluster.StopAPI()
	n.eventually("staleness told", func() bool { return len(n.status().Notes) > 0 })
	n.probeAll(append(all(friend, server, 80, true), all(other, server, 80, false, "default-deny")...)...)

	// A successor of the agent that finds no server lets nothing new through.
	n.signal(unix.SIGKILL)
	n.launch()
	n.eventually("successor answers", func() bool {
		_, err := n.api.Status(n.Context())
		return err == nil
	})
	if n.status().Ready {
		t.Error("ready without having seen the cluster")
	}
	if !n.refusedAt(other, server, 80) {
		t.Error("let through what policy denies")
	}

	n.cluster.StartAPI()
	n.label(other, "role: friend")
	n.label(friend, "role: other")
	n.settle()
	n.probeAll(append(all(other, server, 80, true), all(friend, server, 80, false, "default-deny")...)...)
}

// TestClusterRejects looks that a policy which is not valid closes what it
// selects, opens nothing, and is reported.
func TestClusterRejects(t *testing.T) {
	n := newNode(t, setup{cluster: true})
	n.write("guard-definition", cnpDefinition)
	n.eventually("definition followed", func() bool { return strings.Contains(n.status().Digest, "clusternetworkpolicies") })
	server := n.addPod("server", 1, "app: server")
	friend := n.addPod("friend", 2, "role: friend")
	n.serveBoth(server, 80)
	n.write("guard", strings.Replace(clusterWide, "priority: 1", "priority: 12345", 1))
	n.eventually("rejection", func() bool { return len(n.status().Rejected) == 1 })
	n.settle()
	n.probeAll(all(friend, server, 80, false)...)
	var said []corev1.Event
	n.eventually("event", func() bool {
		said = n.cluster.Events(metav1.NamespaceDefault)
		return len(said) > 0
	})
	if len(said) > 1 {
		t.Errorf("more than one event: %+v", said)
	}
	if e := said[0]; e.InvolvedObject.Name != "guard" || !strings.Contains(e.Message, "spec.priority") {
		t.Errorf("event: %+v", e)
	}
}
