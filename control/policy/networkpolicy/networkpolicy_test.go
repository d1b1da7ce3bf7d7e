package networkpolicy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
)

// parse makes a NetworkPolicy test/np of a spec in YAML.
func parse(t *testing.T, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = "test", "np"
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatal(err)
	}
	return np
}

func selector(spec policy.SelectorSpec) *policy.Selector { return policy.NewSelector(spec) }

func in(key string, values ...string) policy.Requirement {
	return policy.Requirement{Key: key, Operator: policy.In, Values: values}
}

func TestPolicyTypes(t *testing.T) {
	tests := []struct {
		spec            string
		ingress, egress bool
	}{
		{`{podSelector: {}}`, true, false},
		{`{podSelector: {}, ingress: [{}]}`, true, false},
		{`{podSelector: {}, egress: []}`, true, false},
		{`{podSelector: {}, egress: [{}]}`, true, true},
		{`{podSelector: {}, policyTypes: []}`, true, false},
		{`{podSelector: {}, policyTypes: [], egress: [{}]}`, true, true},
		{`{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`, true, false},
		{`{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`, false, true},
		{`{podSelector: {}, policyTypes: [Egress]}`, false, true},
		{`{podSelector: {}, policyTypes: [Egress, Ingress]}`, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			p, rejections := networkpolicy.Convert(parse(t, tt.spec))
			if len(rejections) > 0 || p.Rejected {
				t.Fatal(rejections)
			}
			if p.Ingress.Applies != tt.ingress || p.Egress.Applies != tt.egress {
				t.Errorf("ingress %v, egress %v", p.Ingress.Applies, p.Egress.Applies)
			}
			if !p.Ingress.Applies && len(p.Ingress.Rules) > 0 || !p.Egress.Applies && len(p.Egress.Rules) > 0 {
				t.Error("rules in a direction that doesn't apply")
			}
		})
	}
}

func TestRules(t *testing.T) {
	block := &policy.Block{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	tests := []struct {
		name, ingress string
		want          []policy.Rule
	}{
		{"missing", ``, nil},
		{"none", `[]`, nil},
		{"one that matches all", `[{}]`, []policy.Rule{{AnyPeer: true, AnyPort: true}}},
		{"empty lists", `[{from: [], ports: []}]`, []policy.Rule{{AnyPeer: true, AnyPort: true}}},
		{"all pods of the namespace", `[{from: [{podSelector: {}}]}]`,
			[]policy.Rule{{AnyPort: true, Peers: []policy.Peer{{Selector: selector(policy.SelectorSpec{Namespace: "test"})}}}}},
		{"all pods of all namespaces", `[{from: [{namespaceSelector: {}}]}]`,
			[]policy.Rule{{AnyPort: true, Peers: []policy.Peer{{Selector: selector(policy.SelectorSpec{})}}}}},
		{"both selectors", `[{from: [{podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchExpressions: [
			{key: n1, operator: NotIn, values: [z, w]}, {key: m, operator: Exists}, {key: l, operator: DoesNotExist}]}}]}]`,
			[]policy.Rule{{AnyPort: true, Peers: []policy.Peer{{Selector: selector(policy.SelectorSpec{
				Labels: []policy.Requirement{in("a", "b")},
				NamespaceLabels: []policy.Requirement{{Key: "l", Operator: policy.DoesNotExist},
					{Key: "m", Operator: policy.Exists}, {Key: "n1", Operator: policy.NotIn, Values: []string{"w", "z"}}}})}}}}},
		{"block", `[{from: [{ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}}]}]`,
			[]policy.Rule{{AnyPort: true, Peers: []policy.Peer{{Block: block}}}}},
		{"ports", `[{}, {ports: [{port: 80}, {port: 80, endPort: 90, protocol: UDP}, {protocol: SCTP}, {port: http}, {port: dns, protocol: UDP}, {}]}]`,
			[]policy.Rule{{AnyPeer: true, AnyPort: true}, {Index: 1, AnyPeer: true, Ports: []policy.Port{
				{Protocol: policy.TCP, From: 80, To: 80}, {Protocol: policy.UDP, From: 80, To: 90}, {Protocol: policy.SCTP, To: 65535},
				{Protocol: policy.TCP, Name: "http"}, {Protocol: policy.UDP, Name: "dns"}, {Protocol: policy.TCP, To: 65535}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.want {
				tt.want[i].Action = policy.Allow
			}
			p, rejections := networkpolicy.Convert(parse(t, "{podSelector: {}, ingress: "+tt.ingress+"}"))
			if len(rejections) > 0 {
				t.Fatal(rejections)
			}
			if got, want := describe(p.Ingress.Rules), describe(tt.want); got != want {
				t.Errorf("ingress %s\nwant %s", got, want)
			}
			p, rejections = networkpolicy.Convert(parse(t, "{podSelector: {}, policyTypes: [Egress], egress: "+strings.ReplaceAll(tt.ingress, "from:", "to:")+"}"))
			if len(rejections) > 0 {
				t.Fatal(rejections)
			}
			if got, want := describe(p.Egress.Rules), describe(tt.want); got != want {
				t.Errorf("egress %s\nwant %s", got, want)
			}
		})
	}
}

// describe spells rules out, selectors by their keys.
func describe(rules []policy.Rule) string {
	var b strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&b, "%d %d any peer %v any port %v ports %v peers", r.Index, r.Action, r.AnyPeer, r.AnyPort, r.Ports)
		for _, p := range r.Peers {
			if p.Selector != nil {
				fmt.Fprintf(&b, " {%s}", p.Selector.Key())
			} else {
				fmt.Fprintf(&b, " %v", *p.Block)
			}
		}
		b.WriteString("; ")
	}
	return b.String()
}

func TestRejections(t *testing.T) {
	const labelValue = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
	const labelName = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
	from := func(peer string) string { return "{podSelector: {}, ingress: [{}, {from: [" + peer + "]}]}" }
	ports := func(port string) string { return "{podSelector: {}, ingress: [{ports: [" + port + "]}]}" }
	peer, port := "spec.ingress[1].from[0]", "spec.ingress[0].ports[0]"
	tests := []struct{ name, spec, field, reason string }{
		{"operator", `{podSelector: {matchExpressions: [{key: a, operator: Like}]}}`, "spec.podSelector.matchExpressions[0].operator", `Invalid value: "Like": not a valid selector operator`},
		{"in without values", `{podSelector: {matchExpressions: [{key: a, operator: In}]}}`, "spec.podSelector.matchExpressions[0].values", "Required value: must be specified when `operator` is 'In' or 'NotIn'"},
		{"exists with values", `{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}`, "spec.podSelector.matchExpressions[0].values", "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"},
		{"value", `{podSelector: {matchLabels: {a: "-"}}}`, "spec.podSelector.matchLabels", `Invalid value: "-": ` + labelValue},
		{"key", `{podSelector: {matchLabels: {"-": a}}}`, "spec.podSelector.matchLabels", `Invalid value: "-": ` + labelName},
		{"peer selector", from(`{podSelector: {matchLabels: {a: "-"}}}`), peer + ".podSelector.matchLabels", `Invalid value: "-": ` + labelValue},
		{"namespace selector", from(`{namespaceSelector: {matchExpressions: [{key: a, operator: ""}]}}`), peer + ".namespaceSelector.matchExpressions[0].operator", `Invalid value: "": not a valid selector operator`},
		{"empty peer", from(`{}`), peer, "Required value: must specify a peer"},
		{"block and selector", from(`{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}`), peer, "Forbidden: may not specify both ipBlock and another peer"},
		{"no cidr", from(`{ipBlock: {cidr: ""}}`), peer + ".ipBlock.cidr", "Required value"},
		{"bad cidr", from(`{ipBlock: {cidr: 10.0.0.0}}`), peer + ".ipBlock.cidr", `Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`},
		{"mapped cidr", from(`{ipBlock: {cidr: "::ffff:10.0.0.0/104"}}`), peer + ".ipBlock.cidr", `Invalid value: "::ffff:10.0.0.0/104": must not have an IPv4-mapped IPv6 address`},
		{"bad except", from(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9, x]}}`), peer + ".ipBlock.except[1]", `Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`},
		{"except outside", from(`{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}`), peer + ".ipBlock.except[0]", "Invalid value: \"11.0.0.0/9\": must be a strict subset of `cidr`"},
		{"except is all", from(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}`), peer + ".ipBlock.except[0]", "Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"},
		{"except is larger", from(`{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/7]}}`), peer + ".ipBlock.except[0]", "Invalid value: \"10.0.0.0/7\": must be a strict subset of `cidr`"},
		{"except of the other family", from(`{ipBlock: {cidr: "::/0", except: [10.0.0.0/8]}}`), peer + ".ipBlock.except[0]", "Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"},
		{"protocol", ports(`{protocol: ICMP}`), port + ".protocol", `Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"`},
		{"protocol in lower case", ports(`{protocol: tcp}`), port + ".protocol", `Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"`},
		{"port 0", ports(`{port: 0}`), port + ".port", "Invalid value: 0: must be between 1 and 65535, inclusive"},
		{"port 65536", ports(`{port: 65536}`), port + ".port", "Invalid value: 65536: must be between 1 and 65535, inclusive"},
		{"port name", ports(`{port: "80"}`), port + ".port", `Invalid value: "80": must contain at least one letter (a-z)`},
		{"long port name", ports(`{port: abcdefghijklmnop}`), port + ".port", `Invalid value: "abcdefghijklmnop": must be no more than 15 characters`},
		{"end before port", ports(`{port: 80, endPort: 79}`), port + ".endPort", "Invalid value: 79: must be greater than or equal to `port`"},
		{"end too large", ports(`{port: 80, endPort: 70000}`), port + ".endPort", "Invalid value: 70000: must be between 1 and 65535, inclusive"},
		{"end of a name", ports(`{port: http, endPort: 90}`), port + ".endPort", "Invalid value: 90: may not be specified when `port` is non-numeric"},
		{"end of nothing", ports(`{endPort: 90}`), port + ".endPort", "Invalid value: 90: may not be specified when `port` is not specified"},
		{"types", `{podSelector: {}, policyTypes: [Sideways]}`, "spec.policyTypes", `Unsupported value: "Sideways": supported values: "Egress", "Ingress"`},
		{"too many types", `{podSelector: {}, policyTypes: [Ingress, Egress, Ingress]}`, "spec.policyTypes", `Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes`},
		{"egress", `{podSelector: {}, egress: [{to: [{}], ports: [{port: 1}]}]}`, "spec.egress[0].to[0]", "Required value: must specify a peer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, rejections := networkpolicy.Convert(parse(t, tt.spec))
			if !p.Rejected || len(p.Ingress.Rules)+len(p.Egress.Rules) > 0 {
				t.Errorf("not rejected, or with rules: %+v", p)
			}
			if len(rejections) != 1 {
				t.Fatalf("rejections: %+v", rejections)
			}
			r := rejections[0]
			if r.Object != "NetworkPolicy test/np" || r.Field != tt.field || r.Reason != tt.reason {
				t.Errorf("%s: %s: %s\nwant %s: %s", r.Object, r.Field, r.Reason, tt.field, tt.reason)
			}
		})
	}
}

// TestFailClosed checks whom a rejected policy isolates.
func TestFailClosed(t *testing.T) {
	web := selector(policy.SelectorSpec{Namespace: "test", Labels: []policy.Requirement{in("app", "web")}}).Key()
	all := selector(policy.SelectorSpec{Namespace: "test"}).Key()
	tests := []struct {
		name, spec      string
		subject         string
		ingress, egress bool
	}{
		{"bad peer", `{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{}]}]}`, web, true, false},
		{"bad egress", `{podSelector: {matchLabels: {app: web}}, egress: [{to: [{}]}]}`, web, true, true},
		{"egress only", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{}]}]}`, web, false, true},
		{"bad subject", `{podSelector: {matchLabels: {app: "-"}}}`, all, true, false},
		{"unknown type", `{podSelector: {matchLabels: {app: web}}, policyTypes: [X]}`, web, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, rejections := networkpolicy.Convert(parse(t, tt.spec))
			if len(p.Subject) != 1 || p.Subject[0].Key() != tt.subject {
				t.Errorf("subject %v", p.Subject)
			}
			checkIsolates(t, p, tt.ingress, tt.egress)
			if len(rejections) == 0 || !strings.HasPrefix(rejections[0].Effect, "the pods that it selects are isolated for ") {
				t.Errorf("rejections: %+v", rejections)
			}
		})
	}
}

func checkIsolates(t *testing.T, p *policy.Policy, ingress, egress bool) {
	t.Helper()
	if !p.Rejected || p.Ingress.Applies != ingress || p.Egress.Applies != egress ||
		p.Ingress.Default != policy.Deny || p.Egress.Default != policy.Deny {
		t.Errorf("rejected %v, ingress %+v, egress %+v", p.Rejected, p.Ingress, p.Egress)
	}
}

func TestSalvage(t *testing.T) {
	web := selector(policy.SelectorSpec{Namespace: "test", Labels: []policy.Requirement{in("app", "web")}}).Key()
	all := selector(policy.SelectorSpec{Namespace: "test"}).Key()
	const meta = `"metadata":{"name":"np","namespace":"test"},`
	tests := []struct {
		name, object    string
		subject         string
		ingress, egress bool
	}{
		{"egress is a number", `{` + meta + `"spec":{"podSelector":{"matchLabels":{"app":"web"}},"egress":1}}`, web, true, true},
		{"ingress is a number", `{` + meta + `"spec":{"podSelector":{"matchLabels":{"app":"web"}},"ingress":1}}`, web, true, false},
		{"types is a number", `{` + meta + `"spec":{"podSelector":{"matchLabels":{"app":"web"}},"policyTypes":1}}`, web, true, true},
		{"selector is a number", `{` + meta + `"spec":{"podSelector":1}}`, all, true, false},
		{"selector is half right", `{` + meta + `"spec":{"podSelector":{"matchLabels":{"app":"web"},"matchExpressions":7}}}`, all, true, false},
		{"spec is a list", `{` + meta + `"spec":[]}`, all, true, true},
		{"labels of the policy are a number", `{"metadata":{"name":"np","namespace":"test","labels":3},"spec":{"podSelector":{"matchLabels":{"app":"web"}}}}`, web, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, r := networkpolicy.Salvage([]byte(tt.object), errors.New("wrong type"))
			if p.Origin != (policy.Origin{Kind: "NetworkPolicy", Namespace: "test", Name: "np"}) {
				t.Errorf("origin %v", p.Origin)
			}
			if len(p.Subject) != 1 || p.Subject[0].Key() != tt.subject {
				t.Errorf("subject %+v", p.Subject[0])
			}
			checkIsolates(t, p, tt.ingress, tt.egress)
			if r.Reason != "wrong type" || r.Object != "NetworkPolicy test/np" {
				t.Errorf("rejection %+v", r)
			}
		})
	}
}

func TestMetadata(t *testing.T) {
	np := parse(t, `{podSelector: {}}`)
	np.Namespace = ""
	np.Annotations = map[string]string{networkpolicy.AuditAnnotation: "true"}
	p, rejections := networkpolicy.Convert(np)
	if len(rejections) > 0 || p.Origin.Namespace != "default" || !p.Audit || p.Subject[0].Namespace() != "default" {
		t.Errorf("%+v, %v", p, rejections)
	}
	np.Name = "Not_A_Name"
	if _, rejections = networkpolicy.Convert(np); len(rejections) != 1 || rejections[0].Field != "metadata.name" {
		t.Errorf("rejections: %+v", rejections)
	}
	np.Name = ""
	want := "Required value: name or generateName is required"
	if _, rejections = networkpolicy.Convert(np); len(rejections) != 1 || rejections[0].Reason != want {
		t.Errorf("rejections: %+v", rejections)
	}
	fields := func(spec string) []string {
		_, rejections := networkpolicy.Convert(parse(t, spec))
		var out []string
		for _, r := range rejections {
			out = append(out, r.Field)
		}
		return out
	}
	got := fields(`{podSelector: {}, policyTypes: [X], ingress: [{from: [{}, {ipBlock: {cidr: y}}], ports: [{port: 0}]}]}`)
	if !slices.Equal(got, []string{"spec.ingress[0].from[0]", "spec.ingress[0].from[1].ipBlock.cidr", "spec.ingress[0].ports[0].port", "spec.policyTypes"}) {
		t.Errorf("faults are not all reported: %v", fmt.Sprint(got))
	}
}
