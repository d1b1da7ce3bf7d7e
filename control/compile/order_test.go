package compile_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// slot is an object that there may be, in one version or another.
type slot struct {
	apiVersion, kind string
	metadata         string
	rest             func(r *rand.Rand) string
}

// op writes a version of an object, or removes it.
type op struct {
	origin policy.Origin
	value  any // nil: removes it
	gone   bool
}

func (s *slot) write(t testing.TB, r *rand.Rand) op {
	t.Helper()
	k, ok := object.Lookup(s.apiVersion, s.kind)
	if !ok {
		t.Fatalf("%s %s is not known", s.apiVersion, s.kind)
	}
	text := fmt.Sprintf("metadata: {%s%s}\n%s", s.metadata, pick(r, []string{"", ", labels: {app: x}", ", labels: {app: z, tier: x}"}), s.rest(r))
	doc, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	o, err := k.Decode(doc)
	if err != nil || len(o.Rejections) > 0 || len(o.Unknown) > 0 {
		t.Fatalf("%v %v %v:\n%s", err, o.Rejections, o.Unknown, text)
	}
	return op{origin: o.Origin, value: o.Value}
}

// addressesOf are those of the test's pods; pods may share them, nodes have the last.
var addressesOf = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2", "fd00::3", "192.168.0.1", "192.168.0.2"}

func randomPodText(r *rand.Rand) string {
	host := r.IntN(6) == 0
	var ips []string
	switch {
	case host:
		ips = []string{pick(r, addressesOf[7:])}
	case r.IntN(6) > 0:
		ips = []string{pick(r, addressesOf[:4])}
		if r.IntN(2) == 0 {
			ips = append(ips, pick(r, addressesOf[4:7]))
		}
	}
	list := ""
	for _, ip := range ips {
		list += fmt.Sprintf("{ip: %q}, ", ip)
	}
	name := ""
	if !host || r.IntN(2) == 0 {
		name = fmt.Sprintf("nodeName: %s, ", pick(r, someNodes))
	}
	return fmt.Sprintf(`spec: {%sserviceAccountName: %s, hostNetwork: %v, containers: [{name: c, image: i, ports: [{name: %s, containerPort: %d, protocol: %s}]}]}
status: {phase: %s, podIPs: [%s]}`, name, pick(r, []string{"sa1", "sa2"}), host, pick(r, somePortNames), pick(r, somePorts), pick(r, []string{"TCP", "UDP"}),
		pick(r, []string{"Running", "Running", "Running", "Pending", "Succeeded"}), list)
}

func oneOf(texts ...string) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return pick(r, texts) }
}

func slots() []*slot {
	var out []*slot
	add := func(apiVersion, kind, metadata string, rest func(*rand.Rand) string) {
		out = append(out, &slot{apiVersion, kind, metadata, rest})
	}
	for _, ns := range someNamespaces {
		add("v1", "Namespace", "name: "+ns, oneOf(""))
		add("v1", "ServiceAccount", "name: sa1, namespace: "+ns, oneOf(""))
	}
	for i, n := range someNodes {
		add("v1", "Node", "name: "+n, oneOf("", fmt.Sprintf(`status: {addresses: [{type: InternalIP, address: 192.168.0.%d}]}`, i+1),
			`status: {addresses: [{type: InternalIP, address: 192.168.0.1}, {type: InternalIP, address: "fd00::3"}]}`))
	}
	for i := range 7 {
		add("v1", "Pod", fmt.Sprintf("name: p%d, namespace: %s", i, someNamespaces[i%2]), randomPodText)
	}
	for _, ns := range someNamespaces[:2] {
		add("v1", "Service", "name: svc, namespace: "+ns, oneOf(`spec: {selector: {app: x}, ports: [{port: 80, targetPort: http}]}`,
			`spec: {ports: [{port: 80}]}`, `spec: {selector: {tier: x}, ports: [{port: 53, protocol: UDP, targetPort: 53}]}`))
		add("discovery.k8s.io/v1", "EndpointSlice", "name: one, namespace: "+ns, func(r *rand.Rand) string {
			return fmt.Sprintf("addressType: IPv4\nendpoints: [{addresses: [%s]}]\nports: [{port: 80, protocol: TCP}]", pick(r, []string{"10.0.0.1", "8.8.8.8", "192.168.0.1"}))
		})
		add("projectcalico.org/v3", "NetworkSet", "name: set, namespace: "+ns, oneOf("spec: {nets: [10.0.0.0/30]}", "spec: {nets: [8.8.8.8/32, 'fd00::/64']}"))
		add("networking.k8s.io/v1", "NetworkPolicy", "name: np, namespace: "+ns, oneOf("spec: {podSelector: {}}",
			"spec: {podSelector: {matchLabels: {app: x}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}",
			"spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {app: z}}}, {ipBlock: {cidr: 10.0.0.0/30, except: [10.0.0.1/32]}}]}]}"))
		add("cilium.io/v2", "CiliumNetworkPolicy", "name: cnp, namespace: "+ns, oneOf(
			"spec: {endpointSelector: {}, ingress: [{fromEntities: [world]}]}",
			"spec: {endpointSelector: {}, egress: [{toServices: [{k8sService: {serviceName: svc, namespace: a}}]}, {toEntities: [host, kube-apiserver]}]}",
			"spec: {endpointSelector: {matchLabels: {app: x}}, ingressDeny: [{fromEntities: [host]}], egressDeny: [{toCIDRSet: [{cidrGroupRef: group}]}], egress: [{toEntities: [all]}]}",
			"spec: {endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: '*.test'}]}, {toCIDRSet: [{cidrGroupRef: group}]}]}"))
		add("projectcalico.org/v3", "NetworkPolicy", "name: cal, namespace: "+ns, oneOf(
			"spec: {tier: first, ingress: [{action: Pass, source: {selector: app == 'x'}}, {action: Deny, destination: {nets: [10.0.0.0/30]}}]}",
			"spec: {tier: second, selector: app == 'x', types: [Egress], egress: [{action: Allow, destination: {services: {name: svc}}}, {action: Log}, {action: Deny, protocol: TCP, destination: {notPorts: [http]}}]}",
			"spec: {ingress: [{action: Allow, protocol: TCP, source: {namespaceSelector: all(), serviceAccounts: {selector: app == 'x'}}, destination: {ports: [http]}}]}"))
	}
	add("discovery.k8s.io/v1", "EndpointSlice", "name: kubernetes, namespace: default", oneOf(
		"addressType: IPv4\nendpoints: [{addresses: [192.168.0.2]}]", "addressType: IPv4\nendpoints: [{addresses: [8.8.8.8]}]"))
	for i, order := range []string{"first", "second"} {
		add("projectcalico.org/v3", "Tier", "name: "+order, oneOf(fmt.Sprintf("spec: {order: %d}", i+10), "spec: {order: 2000000, defaultAction: Pass}", "spec: {}"))
	}
	add("projectcalico.org/v3", "GlobalNetworkSet", "name: set", oneOf("spec: {nets: [10.0.0.0/31]}", "spec: {nets: [192.168.0.0/16]}"))
	add("projectcalico.org/v3", "GlobalNetworkPolicy", "name: gnp", oneOf(
		"spec: {namespaceSelector: app == 'x', order: 5, ingress: [{action: Deny, source: {notSelector: app == 'x'}}]}",
		"spec: {tier: first, egress: [{action: Pass, source: {selector: app == 'x'}}, {action: Allow, destination: {namespaceSelector: global(), selector: app == 'x'}}]}"))
	add("projectcalico.org/v3", "StagedGlobalNetworkPolicy", "name: gnp", oneOf("spec: {stagedAction: Delete}", "spec: {ingress: [{action: Allow}]}"))
	add("cilium.io/v2", "CiliumCIDRGroup", "name: group", oneOf("spec: {externalCIDRs: [8.8.8.0/24]}", "spec: {externalCIDRs: [10.0.0.0/8, '2001:db8::/32']}"))
	add("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "name: anp", oneOf(
		"spec: {priority: 3, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {app: z}}}]}]}",
		"spec: {priority: 1, subject: {namespaces: {matchLabels: {app: x}}}, egress: [{action: Pass, to: [{nodes: {}}]}, {action: Deny, to: [{networks: [192.168.0.0/16]}]}]}"))
	add("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "name: cnp", oneOf(
		"spec: {priority: 2, tier: Baseline, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [a.test]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]}",
		"spec: {priority: 2, tier: Admin, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: x}}}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]}"))
	return out
}

// history is what happens to the objects: each has some versions, and the last
// of them in the end.
func history(t testing.TB, r *rand.Rand) (ops, last []op) {
	var lists [][]op
	for _, s := range slots() {
		var list []op
		for range 1 + r.IntN(3) {
			x := s.write(t, r)
			if r.IntN(4) == 0 {
				x = op{origin: x.origin, gone: true}
			}
			list = append(list, x)
		}
		last = append(last, list[len(list)-1])
		lists = append(lists, list)
	}
	for len(lists) > 0 {
		i := r.IntN(len(lists))
		ops = append(ops, lists[i][0])
		if lists[i] = lists[i][1:]; len(lists[i]) == 0 {
			lists = slices.Delete(lists, i, i+1)
		}
	}
	return ops, last
}

func (x *op) apply(tx *store.Tx) {
	if x.gone {
		object.Remove(tx, x.origin)
	} else {
		object.Put(tx, x.value)
	}
}

// TestAnyOrder has objects of all languages come, change and go in any order, in
// transactions and updates of any size, and compares what that leads to with
// what is read at once, and with Explain.
func TestAnyOrder(t *testing.T) {
	runs := uint64(80)
	if testing.Short() {
		runs = 20
	}
	for seed := range runs {
		anyOrder(t, seed)
	}
}

func anyOrder(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 5))
	ops, last := history(t, r)
	domains := map[string][]netip.Addr{"a.test": addrs("8.8.8.8", "10.0.0.1")}
	var endpoints []endpoint.Endpoint
	for i := range 7 {
		endpoints = append(endpoints, endpoint.Endpoint{ID: endpoint.ID(i + 1), Namespace: someNamespaces[i%2], Name: fmt.Sprint("p", i)})
	}
	input := func(v store.View) compile.Input {
		return compile.Input{View: v, Node: node, Endpoints: endpoints, Domains: domains}
	}
	st, pub := store.New(), publish.New(compile.Config{})
	var table *classify.Table
	next := func() {
		st.Read(func(v store.View) {
			var err error
			if table, err = pub.Next(input(v)); err != nil {
				t.Fatal(err)
			}
		})
	}
	for len(ops) > 0 {
		n := min(1+r.IntN(4), len(ops))
		st.Update(func(tx *store.Tx) {
			for i := range ops[:n] {
				ops[i].apply(tx)
			}
		})
		ops = ops[n:]
		if r.IntN(2) == 0 {
			next()
		}
	}
	next()
	once := store.New()
	once.Update(func(tx *store.Tx) {
		for i := range last {
			last[i].apply(tx)
		}
	})
	var fresh *rule.Set
	once.Read(func(v store.View) { fresh = compile.New(compile.Config{}).Compile(input(v)) })
	want, err := classify.Build(fresh)
	if err != nil {
		t.Fatal(err)
	}
	if d := differ(table, want, endpoints); d != "" {
		t.Fatalf("seed %d: in another order: %s", seed, d)
	}
	once.Read(func(v store.View) { explained(t, r, v, table, endpoints, domains, seed) })
}

// explained compares a table with Explain.
func explained(t *testing.T, r *rand.Rand, v store.View, table *classify.Table, endpoints []endpoint.Endpoint, domains map[string][]netip.Addr, seed uint64) {
	t.Helper()
	world := resolve.World{Domains: domains}
	for _, e := range endpoints {
		key := store.Key{Namespace: e.Namespace, Name: e.Name}
		pod := v.Pod(key)
		if pod == nil || pod.HostNetwork || pod.NodeName != node {
			continue
		}
		for range 100 {
			remote, dir := pick(r, someAddrs), rule.Direction(r.IntN(2))
			at := slices.IndexFunc(pod.Addrs(), func(a netip.Addr) bool { return a.Is4() == remote.Is4() })
			if at < 0 || slices.Contains(pod.Addrs(), remote) {
				continue
			}
			q := resolve.Query{Src: resolve.End{Pod: key, Addr: pod.Addrs()[at]}, Dst: resolve.End{Addr: remote},
				Protocol: pick(r, []policy.Protocol{policy.TCP, policy.UDP}), Port: uint16(pick(r, somePorts))}
			if dir == rule.Ingress {
				q.Src, q.Dst = q.Dst, q.Src
			}
			d, err := resolve.Explain(v, q, world)
			if err != nil {
				t.Fatal(err)
			}
			want := d.Egress
			if dir == rule.Ingress {
				want = d.Ingress
			}
			ask := [1]classify.Query{{Remote: packet.AddrFrom(remote), Row: table.Row(e.ID, dir), Proto: packet.Proto(q.Protocol), Port: q.Port}}
			var out [1]classify.Verdict
			table.Classify(ask[:], out[:])
			if got, may := out[0].Allowed(), want.Action == rule.Allow || want.Audit; got != may {
				t.Fatalf("seed %d: %s of %s at %v, remote %v, %v %d: allowed %v by %v, Explain says %v by %v %s", seed, dir, e, pod.Addrs()[at], remote,
					q.Protocol, q.Port, got, table.Causes()[table.Cause(out[0])], may, want.Refs, strings.TrimSpace(want.Text))
			}
		}
	}
}
