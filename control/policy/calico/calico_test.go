package calico_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico"
	"github.com/sluice-net/sluice/control/resolve"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

func decode(t *testing.T, apiVersion, kind, metadata, spec string) object.Object {
	t.Helper()
	k, ok := object.Lookup(apiVersion, kind)
	if !ok {
		t.Fatalf("no kind %s %s", apiVersion, kind)
	}
	doc := `{"apiVersion":"` + apiVersion + `","kind":"` + kind + `","metadata":` + metadata + `,"spec":` + spec + `}`
	if !json.Valid([]byte(doc)) {
		t.Fatalf("not JSON: %s", doc)
	}
	o, err := k.Decode([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func fields(o object.Object) string {
	var out []string
	for _, r := range o.Rejections {
		out = append(out, r.Field)
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), " ")
}

// directions names what a policy closes or judges.
func directions(p *policy.Policy) string {
	out := ""
	if p.Ingress.Applies {
		out += "i"
	}
	if p.Egress.Applies {
		out += "e"
	}
	return out
}

func TestRefused(t *testing.T) {
	rule := func(r string) string { return `{"ingress":[{"action":"Allow"},` + r + `]}` }
	egress := func(r string) string { return `{"egress":[` + r + `]}` }
	for _, c := range []struct{ name, kind, spec, fields, closed string }{
		{"do not track", "GlobalNetworkPolicy", `{"doNotTrack":true,"applyOnForward":true}`, "spec.applyOnForward spec.doNotTrack", "i"},
		{"before DNAT", "GlobalNetworkPolicy", `{"preDNAT":true,"types":["Ingress","Egress"]}`, "spec.preDNAT", "ie"},
		{"switched off", "GlobalNetworkPolicy", `{"preDNAT":false,"doNotTrack":false,"applyOnForward":false}`, "", "i"},
		{"of another kind", "NetworkPolicy", `{"preDNAT":true}`, "spec.preDNAT", "i"},
		{"HTTP", "NetworkPolicy", rule(`{"action":"Allow","http":{"methods":["GET"]}}`), "spec.ingress[1].http", "i"},
		{"source ports", "NetworkPolicy", egress(`{"action":"Allow","protocol":"TCP","source":{"ports":[1],"notPorts":[2]}}`), "spec.egress[0].source.notPorts spec.egress[0].source.ports", "e"},
		{"domains", "NetworkPolicy", egress(`{"action":"Allow","destination":{"domains":["example.com"]}}`), "spec.egress[0].destination.domains", "e"},
		{"action", "NetworkPolicy", rule(`{"action":"allow"}`), "spec.ingress[1].action", "i"},
		{"no action", "NetworkPolicy", rule(`{}`), "spec.ingress[1].action", "i"},
		{"unknown field", "NetworkPolicy", `{"egres":[]}`, "spec.egres", "i"},
		{"selector", "NetworkPolicy", `{"selector":"app =","types":["Egress"]}`, "spec.selector", "e"},
		{"global() as a subject", "NetworkPolicy", `{"selector":"global()"}`, "spec.selector", "i"},
		{"global() and more", "NetworkPolicy", rule(`{"action":"Allow","source":{"namespaceSelector":"global() || has(a)"}}`), "spec.ingress[1].source.namespaceSelector", "i"},
		{"global() in a selector", "NetworkPolicy", rule(`{"action":"Allow","source":{"selector":"global()"}}`), "spec.ingress[1].source.selector", "i"},
		{"types", "NetworkPolicy", `{"types":["ingress"]}`, "spec.types[0]", "ie"},
		{"types twice", "NetworkPolicy", `{"types":["Egress","Egress"]}`, "spec.types[1]", "e"},
		{"types of a wrong type", "NetworkPolicy", `{"types":"Ingress"}`, "spec.types", "ie"},
		{"spec of a wrong type", "NetworkPolicy", `[]`, "spec", "ie"},
		{"selector of a wrong type", "NetworkPolicy", `{"selector":5,"egress":[{"action":"Deny"}]}`, "spec.selector", "e"},
		{"rule of a wrong type", "NetworkPolicy", egress(`{"action":5}`), "spec.egress[0]", "e"},
		{"protocol", "NetworkPolicy", rule(`{"action":"Allow","protocol":"tcp"}`), "spec.ingress[1].protocol", "i"},
		{"protocol 0", "NetworkPolicy", rule(`{"action":"Allow","protocol":0,"notProtocol":256}`), "spec.ingress[1].notProtocol spec.ingress[1].protocol", "i"},
		{"numbers as text", "NetworkPolicy", rule(`{"action":"Allow","protocol":"6","destination":{"ports":["80"]}}`), "", "i"},
		{"ports without a protocol", "NetworkPolicy", rule(`{"action":"Allow","destination":{"ports":["a",80,"1:2"]}}`), "spec.ingress[1].destination.ports[1] spec.ingress[1].destination.ports[2]", "i"},
		{"ports of ICMP", "NetworkPolicy", rule(`{"action":"Allow","protocol":"ICMP","destination":{"notPorts":[80]}}`), "spec.ingress[1].destination.notPorts", "i"},
		{"bad ports", "NetworkPolicy", rule(`{"action":"Allow","protocol":"TCP","destination":{"ports":[0,65536,"2:1","1:","",-1]}}`),
			"spec.ingress[1].destination.ports[0] spec.ingress[1].destination.ports[1] spec.ingress[1].destination.ports[2] spec.ingress[1].destination.ports[3] spec.ingress[1].destination.ports[4] spec.ingress[1].destination.ports[5]", "i"},
		{"ICMP without its protocol", "NetworkPolicy", rule(`{"action":"Allow","icmp":{"type":8}}`), "spec.ingress[1].icmp", "i"},
		{"not ICMP without its protocol", "NetworkPolicy", rule(`{"action":"Allow","notICMP":{"type":8}},{"action":"Deny","protocol":"TCP","notICMP":{"type":8}}`), "spec.ingress[1].notICMP spec.ingress[2].notICMP", "i"},
		{"ICMP code alone", "NetworkPolicy", rule(`{"action":"Allow","protocol":"ICMP","icmp":{"code":1},"notICMP":{"type":255}}`), "spec.ingress[1].icmp.code spec.ingress[1].notICMP.type", "i"},
		{"ICMP of IPv6", "NetworkPolicy", rule(`{"action":"Allow","protocol":"ICMP","ipVersion":6}`), "spec.ingress[1].ipVersion", "i"},
		{"IP version", "NetworkPolicy", rule(`{"action":"Allow","ipVersion":5}`), "spec.ingress[1].ipVersion", "i"},
		{"nets", "NetworkPolicy", rule(`{"action":"Allow","source":{"nets":["10.0.0.1/8","10.0.0.1","x"]}}`),
			"spec.ingress[1].source.nets[0] spec.ingress[1].source.nets[1] spec.ingress[1].source.nets[2]", "i"},
		{"both families", "NetworkPolicy", rule(`{"action":"Allow","source":{"nets":["10.0.0.0/8"]},"destination":{"notNets":["fd00::/8"]}}`), "spec.ingress[1].destination.notNets", "i"},
		{"family and version", "NetworkPolicy", rule(`{"action":"Allow","ipVersion":6,"source":{"nets":["10.0.0.0/8"]}}`), "spec.ingress[1].source.nets", "i"},
		{"not anything", "NetworkPolicy", rule(`{"action":"Allow","source":{"notNets":["0.0.0.0/0"]}}`), "spec.ingress[1].source.notNets[0]", "i"},
		{"Service on the wrong side", "NetworkPolicy", rule(`{"action":"Allow","destination":{"services":{"name":"x"}}}`), "spec.ingress[1].destination.services", "i"},
		{"Service and more", "NetworkPolicy", egress(`{"action":"Allow","protocol":"TCP","destination":{"services":{"name":"x"},"ports":[80],"nets":["10.0.0.0/8"]}}`), "spec.egress[0].destination.services", "e"},
		{"Service without a name", "NetworkPolicy", egress(`{"action":"Allow","destination":{"services":{}}}`), "spec.egress[0].destination.services.name", "e"},
		{"Service of no namespace", "GlobalNetworkPolicy", egress(`{"action":"Allow","destination":{"services":{"name":"x"}}}`), "spec.egress[0].destination.services.namespace", "e"},
		{"tier", "GlobalNetworkPolicy", `{"tier":"SEC","order":1}`, "spec.tier", "i"},
		{"tier of a wrong type", "NetworkPolicy", `{"tier":5,"types":["Egress"]}`, "spec.tier", "e"},
		{"hints", "NetworkPolicy", `{"performanceHints":["AssumeNeededOnEveryNode","Faster"]}`, "spec.performanceHints[1]", "i"},
		{"name of an account", "NetworkPolicy", rule(`{"action":"Allow","source":{"serviceAccounts":{"names":["ok","x'} || all() || has(y) && z in {'","a'b"]}}}`),
			"spec.ingress[1].source.serviceAccounts.names[1] spec.ingress[1].source.serviceAccounts.names[2]", "i"},
		{"staged", "StagedNetworkPolicy", `{"selector":"(","types":["Ingress"]}`, "spec.selector", ""},
		{"staged action", "StagedGlobalNetworkPolicy", `{"stagedAction":"Later"}`, "spec.stagedAction", ""},
		{"deletion with rules", "StagedNetworkPolicy", `{"stagedAction":"Delete","selector":"all()"}`, "spec", ""},
		{"deletion", "StagedNetworkPolicy", `{"stagedAction":"Delete","tier":"default"}`, "", ""},
		{"metadata", "StagedKubernetesNetworkPolicy", `{"podSelector":{},"policyTypes":["Both"]}`, "spec.policyTypes", ""},
	} {
		for _, group := range []string{"crd.projectcalico.org/v1", "projectcalico.org/v3"} {
			o := decode(t, group, c.kind, `{"name":"p","namespace":"ns"}`, c.spec)
			p := o.Value.(*policy.Policy)
			if got := fields(o); got != c.fields {
				t.Errorf("%s: fields %q, want %q (%v)", c.name, got, c.fields, o.Rejections)
			}
			if p.Rejected != (c.fields != "") || directions(p) != c.closed {
				t.Errorf("%s: rejected %v, directions %q, want %q", c.name, p.Rejected, directions(p), c.closed)
			}
			if unplaced := c.closed != "" && (c.fields == "spec" || c.fields == "spec.tier"); p.Tier == policy.TierUnplaced != unplaced || unplaced && p.TierObject {
				t.Errorf("%s: closed in tier %v", c.name, p.Tier)
			}
			for _, s := range []policy.Section{p.Ingress, p.Egress} {
				if p.Rejected && s.Applies && (s.Default != policy.Deny || len(s.Rules) != 1 || s.Rules[0].Action != policy.Deny || !s.Rules[0].AnyPeer || !s.Rules[0].AnyPort) {
					t.Errorf("%s: rejected, and yet %+v", c.name, s)
				}
			}
		}
	}
}

// What can't be read at all of an object's metadata closes it too.
func TestIllegibleMetadata(t *testing.T) {
	o := decode(t, "projectcalico.org/v3", "NetworkPolicy", `{"name":"p","namespace":"ns","labels":[]}`, `{"types":["Ingress"]}`)
	if p, ok := o.Value.(*policy.Policy); !ok || !p.Rejected || directions(p) != "i" || p.Origin.Name != "p" || len(o.Rejections) == 0 {
		t.Errorf("%+v", o)
	}
}

// What no namespace can be called is no part of a selector's text.
func TestOddNamespace(t *testing.T) {
	for _, ns := range []string{"a'b", "x' || all() || y == 'z", `"'`} {
		name, err := json.Marshal(ns)
		if err != nil {
			t.Fatal(err)
		}
		o := decode(t, "projectcalico.org/v3", "NetworkPolicy", `{"name":"p","namespace":`+string(name)+`}`,
			`{"ingress":[{"action":"Allow","source":{"selector":"all()"}}]}`)
		p := o.Value.(*policy.Policy)
		if fields(o) != "metadata.namespace" || !p.Rejected || directions(p) != "i" {
			t.Errorf("%s: %v, directions %q", ns, o.Rejections, directions(p))
		}
		if p.Selects(&policy.Entity{Namespace: "other"}) || !p.Selects(&policy.Entity{Namespace: ns}) {
			t.Errorf("%s: selects pods of other namespaces, or none of its own", ns)
		}
	}
}

func TestHostEndpoint(t *testing.T) {
	o := decode(t, "crd.projectcalico.org/v1", "HostEndpoint", `{"name":"h"}`, `{"node":"n","interfaceName":"*"}`)
	if o.Value != nil || fields(o) != "spec" {
		t.Errorf("%+v", o)
	}
}

func TestTiers(t *testing.T) {
	for _, c := range []struct{ name, spec, fields string }{
		{"security", `{"order":5,"defaultAction":"Pass"}`, ""},
		{"security", `{"defaultAction":"Allow"}`, "spec.defaultAction"},
		{"default", `{"order":1000000,"defaultAction":"Deny"}`, ""},
		{"default", `{"order":7}`, "spec.order"},
		{"kube-baseline", `{"order":10000000}`, "spec.defaultAction"},
	} {
		if got := fields(decode(t, "projectcalico.org/v3", "Tier", `{"name":"`+c.name+`"}`, c.spec)); got != c.fields {
			t.Errorf("%s %s: %q, want %q", c.name, c.spec, got, c.fields)
		}
	}
}

// In crd.projectcalico.org/v1, a set's labels are in an annotation once Calico
// itself has written it.
func TestSetOfStorage(t *testing.T) {
	s := &calico.NetworkSet{}
	s.Name, s.Labels = "s", map[string]string{"a": "b"}
	s.Annotations = map[string]string{"projectcalico.org/metadata": `{"labels":{"c":"d"}}`}
	s.Spec.Nets = []string{"10.0.0.9/24", "10.0.0.0/24", "::1", "x", "::ffff:10.0.0.0/120"}
	nets, labels, rejections := s.CIDRs(calico.GlobalSetKind)
	if len(nets) != 2 || nets[1].String() != "::1/128" || labels["c"] != "d" || len(labels) != 1 || len(rejections) != 1 || rejections[0].Field != "spec.nets[3]" {
		t.Errorf("%v %v %v", nets, labels, rejections)
	}
}

// A policy whose order can't be read closes before all others of its tier.
func TestIllegibleOrder(t *testing.T) {
	first := decode(t, "projectcalico.org/v3", "NetworkPolicy", `{"name":"a","namespace":"ns"}`, `{"order":-3}`).Value.(*policy.Policy)
	for _, order := range []string{`"-5"`, `{}`, `[1]`, `1e999`} {
		p := decode(t, "projectcalico.org/v3", "NetworkPolicy", `{"name":"b","namespace":"ns"}`, `{"order":`+order+`}`).Value.(*policy.Policy)
		if !p.Rejected || p.Compare(first) >= 0 {
			t.Errorf("order %s: rejected %v, at %v", order, p.Rejected, p.Order)
		}
	}
	// Of one that had an order the last valid version is judged first, as ever.
	st := store.New()
	for _, spec := range []string{`{"order":-7,"ingress":[{"action":"Allow"}]}`, `{"order":"-7"}`} {
		p := decode(t, "projectcalico.org/v3", "NetworkPolicy", `{"name":"b","namespace":"ns"}`, spec).Value.(*policy.Policy)
		st.Update(func(tx *store.Tx) { tx.SetPolicy(p) })
	}
	st.Read(func(v store.View) {
		list := slices.SortedStableFunc(v.Policies("ns"), (*policy.Policy).Compare)
		if len(list) != 2 || list[0].Rejected || !list[1].Rejected || list[1].Order != -7 {
			t.Errorf("%+v", list)
		}
	})
}

// An IPv4-mapped network is one of IPv4: no packet has an address of the other.
func TestMapped(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) {
		put(t, tx, "v1", "Pod", m{"metadata": m{"namespace": "a", "name": "p"}, "spec": m{"nodeName": "n"}, "status": m{"podIPs": []m{{"ip": "10.0.0.1"}}}})
		put(t, tx, group, "GlobalNetworkSet", m{"metadata": m{"name": "s", "labels": m{"k": "v"}}, "spec": m{"nets": []string{"::ffff:192.0.2.0/120", "::ffff:203.0.113.9"}}})
		put(t, tx, group, "GlobalNetworkPolicy", m{"metadata": m{"name": "p"}, "spec": m{"ingress": []m{
			{"action": "Deny", "source": m{"nets": []string{"::ffff:198.51.100.0/120"}}}, {"action": "Deny", "source": m{"selector": "k == 'v'"}}, {"action": "Allow"}}}})
	})
	st.Read(func(v store.View) {
		set := compile.New(compile.Config{}).Compile(compile.Input{View: v, Node: "n", Endpoints: []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "p"}}})
		for from, want := range map[string]rule.Action{"198.51.100.7": rule.Deny, "192.0.2.7": rule.Deny, "203.0.113.9": rule.Deny, "203.0.113.8": rule.Allow} {
			if action, _, _, _ := ruletest.Evaluate(set, 1, rule.Ingress, netip.MustParseAddr(from), 6, 80); action != want {
				t.Errorf("from %s: %v, want %v", from, action, want)
			}
		}
	})
}

// A node reaches its own pods whatever order a tier has.
func TestOwnNode(t *testing.T) {
	st := store.New()
	st.Update(func(tx *store.Tx) {
		put(t, tx, "v1", "Node", m{"metadata": m{"name": "n"}, "status": m{"addresses": []m{{"type": "InternalIP", "address": "192.168.0.1"}}}})
		put(t, tx, "v1", "Pod", m{"metadata": m{"namespace": "a", "name": "p"}, "spec": m{"nodeName": "n"}, "status": m{"podIPs": []m{{"ip": "10.0.0.1"}}}})
		put(t, tx, group, "Tier", m{"metadata": m{"name": "first"}, "spec": m{"order": -5}})
		put(t, tx, group, "GlobalNetworkPolicy", m{"metadata": m{"name": "first.p"}, "spec": m{"tier": "first", "ingress": []m{{"action": "Deny"}}}})
	})
	st.Read(func(v store.View) {
		set := compile.New(compile.Config{}).Compile(compile.Input{View: v, Node: "n", Endpoints: []endpoint.Endpoint{{ID: 1, Namespace: "a", Name: "p"}}})
		for from, want := range map[string]bool{"192.168.0.1": true, "192.168.0.2": false} {
			q := resolve.Query{Src: resolve.End{Addr: netip.MustParseAddr(from)}, Dst: resolve.End{Pod: store.Key{Namespace: "a", Name: "p"}}, Protocol: policy.TCP, Port: 80}
			d, err := resolve.Explain(v, q, resolve.World{})
			action, _, _, _ := ruletest.Evaluate(set, 1, rule.Ingress, q.Src.Addr, 6, 80)
			if err != nil || d.Allowed != want || (action == rule.Allow) != want {
				t.Errorf("from %s: Explain %v, compiled %v, want %v (%v)", from, d.Allowed, action, want, err)
			}
		}
	})
}
