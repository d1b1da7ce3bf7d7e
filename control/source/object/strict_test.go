package object_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
)

// TestClusterRulesAreStrict reads policies that the CRDs refuse, and says what
// of them is left: "deny" for a rule that denies all, the action for one that
// holds as written.
func TestClusterRulesAreStrict(t *testing.T) {
	const (
		cnp  = "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy"
		anp  = "policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy"
		banp = "policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy"
		all  = "namespaces: {}"
		head = "priority: 1, tier: Admin, subject: {namespaces: {}}"
		old  = "priority: 1, subject: {namespaces: {}}"
	)
	many := func(n int, format string) string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf(format, i)
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	accept := func(protocols string) string {
		return head + ", ingress: [{action: Accept, from: [{" + all + "}], protocols: " + protocols + "}, {action: Deny, from: [{" + all + "}]}]"
	}
	deny := func(protocols string) string {
		return head + ", egress: [{action: Deny, to: [{" + all + "}], protocols: " + protocols + "}]"
	}
	tests := []struct {
		name, kind, spec string
		fault            string // field and reason
		left             string // rules, ingress then egress
	}{
		{"valid", cnp, accept("[{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 1, end: 2}}}}, {destinationNamedPort: web}]"), "", "allow deny"},
		{"no priority", cnp, "tier: Admin, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{" + all + "}]}, {action: Pass, from: [{" + all + "}]}]",
			"spec.priority: Required value", ""},
		{"unknown tier", cnp, "priority: 1, tier: Basline, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{" + all + "}]}, {action: Deny, from: [{" + all + "}]}]",
			`spec.tier: Unsupported value: "Basline": supported values: "Admin", "Baseline"`, "deny"},
		{"fault in the other direction", cnp, head + ", ingress: [{action: Pass, from: [{" + all + "}]}], egress: [{action: Accept, to: [{networks: [nonsense]}]}]",
			`spec.egress[0].to[0].networks[0]: Invalid value: "nonsense": Invalid CIDR format provided`, ""},
		{"illegible subject", banp, "subject: {namespaces: {matchLabels: {a: 5}}}, ingress: [{action: Allow, from: [{" + all + "}]}, {action: Deny, from: [{" + all + "}]}]",
			`spec.subject: Required value: must specify namespaces or pods; spec.subject.namespaces.matchLabels: Invalid value: "number": must be of type string`, "deny"},
		{"null priority", anp, "priority: null, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{" + all + "}]}]", "spec.priority: Required value", ""},
		{"no podSelector", cnp, head + ", ingress: [{action: Accept, from: [{pods: {namespaceSelector: {}}}]}]",
			"spec.ingress[0].from[0].pods.podSelector: Required value", ""},
		{"no podSelector of a subject", cnp, "priority: 1, tier: Admin, subject: {pods: {}}, egress: [{action: Accept, to: [{" + all + "}]}]",
			"spec.subject.pods.podSelector: Required value", ""},
		{"no namespaceSelector", cnp, head + ", ingress: [{action: Accept, from: [{pods: {podSelector: {}}}]}]", "", "allow"},
		{"no namespaceSelector in v1alpha1", anp, old + ", egress: [{action: Deny, to: [{pods: {podSelector: {}}}]}]",
			"spec.egress[0].to[0].pods.namespaceSelector: Required value", "deny-all"},
		{"the same of a baseline", banp, "subject: {namespaces: {}}, egress: [{action: Allow, to: [{pods: {podSelector: {}}}]}]",
			"spec.egress[0].to[0].pods.namespaceSelector: Required value", ""},
		{"no protocol", cnp, accept("[]"), "spec.ingress[0].protocols: Required value: must specify at least one, or leave the field out", "deny"},
		{"no port", anp, old + ", ingress: [{action: Allow, from: [{" + all + "}], ports: []}]",
			"spec.ingress[0].ports: Required value: must specify at least one, or leave the field out", ""},
		{"two protocols in one", cnp, deny("[{tcp: {destinationPort: {number: 80}}, udp: {destinationPort: {number: 53}}}]"),
			"spec.egress[0].protocols[0]: Forbidden: may not specify more than one kind of protocol", "deny-all"},
		{"number and range", cnp, accept("[{tcp: {destinationPort: {number: 80, range: {start: 1, end: 9}}}}]"),
			"spec.ingress[0].protocols[0].tcp.destinationPort: Forbidden: may not specify both number and range", "deny"},
		{"two kinds of ports", anp, old + ", ingress: [{action: Deny, from: [{" + all + "}], ports: [{portNumber: {protocol: TCP, port: 80}, namedPort: web}]}]",
			"spec.ingress[0].ports[0]: Forbidden: may not specify more than one kind of port", "deny-all"},
		{"range of one", cnp, accept("[{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]"),
			"spec.ingress[0].protocols[0].tcp.destinationPort.range: Invalid value: 80: Start port must be less than End port", "deny"},
		{"range of one in v1alpha1", anp, old + ", ingress: [{action: Allow, from: [{" + all + "}], ports: [{portRange: {start: 80, end: 80}}]}]", "", "allow"},
		{"rules", cnp, head + ", ingress: " + many(26, "{action: Accept, name: r%d, from: [{"+all+"}]}"), "spec.ingress: Too many: 26: must have at most 25 items", ""},
		{"rules of v1alpha1", anp, old + ", ingress: " + many(100, "{action: Pass, name: r%d, from: [{"+all+"}]}"), "", strings.Repeat("pass ", 100)},
		{"peers", cnp, head + ", egress: [{action: Accept, to: " + many(26, "{namespaces: {matchLabels: {a: b%d}}}") + "}]",
			"spec.egress[0].to: Too many: 26: must have at most 25 items", ""},
		{"protocols", cnp, deny(many(26, "{tcp: {destinationPort: {number: 1%d}}}")), "spec.egress[0].protocols: Too many: 26: must have at most 25 items", "deny-all"},
		{"networks", anp, old + ", egress: [{action: Allow, to: [{networks: " + many(26, "10.0.%d.0/24") + "}]}]",
			"spec.egress[0].to[0].networks: Too many: 26: must have at most 25 items", ""},
		{"a network twice", cnp, head + ", egress: [{action: Deny, to: [{networks: [10.0.0.0/8, 10.0.0.0/8]}]}]",
			`spec.egress[0].to[0].networks[1]: Duplicate value: "10.0.0.0/8"`, "deny-all"},
		{"a name twice", cnp, head + ", egress: [{action: Accept, to: [{domainNames: [a.b, a.b]}]}]",
			`spec.egress[0].to[0].domainNames[1]: Duplicate value: "a.b"`, ""},
		{"long name", cnp, head + ", egress: [{name: " + strings.Repeat("x", 101) + ", action: Accept, to: [{" + all + "}]}]",
			"spec.egress[0].name: Too long: may not be more than 100 characters", ""},
		{"name of characters of two bytes", cnp, head + ", egress: [{name: " + strings.Repeat("ä", 100) + ", action: Accept, to: [{" + all + "}]}]", "", "allow"},
		{"unknown field of a rule", cnp, head + ", ingress: [{action: Accept, from: [{" + all + "}], icmp: {}}, {action: Accept, from: [{" + all + "}]}]",
			"spec.ingress[0].icmp: Forbidden: unknown field", "allow"},
		{"unknown field of a selector", anp, old + ", ingress: [{action: Pass, from: [{namespaces: {sameLabels: [a]}}]}]",
			"spec.ingress[0].from[0].namespaces.sameLabels: Forbidden: unknown field", "deny-all"},
		{"illegible port", cnp, head + ", ingress: [{action: Accept, from: [{" + all + "}]}, {action: Deny, from: [{" + all + "}], protocols: [{tcp: {destinationPort: {number: '80'}}}]}, {action: Pass, from: [{" + all + "}]}]",
			`spec.ingress.protocols.tcp.destinationPort.number: Invalid value: "string": must be of type int32; ` +
				"spec.ingress[1].from: Required value: must specify at least one peer", "deny-all"},
		{"illegible priority", anp, "priority: high, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{" + all + "}]}, {action: Deny, from: [{" + all + "}]}]",
			`spec.priority: Invalid value: "string": must be of type int32; spec.priority: Required value`, "deny"},
		{"illegible action", banp, "subject: {namespaces: {}}, egress: [{action: 1, to: [{" + all + "}]}]",
			`spec.egress.action: Invalid value: "number": must be of type v1alpha1.BaselineAdminNetworkPolicyRuleAction; ` +
				`spec.egress[0].action: Invalid value: "": not a known action; spec.egress[0].to: Required value: must specify at least one peer`, "deny-all"},
		{"illegible rules and subject", cnp, "priority: 1, tier: Admin, subject: all, ingress: 7, egress: [{action: Deny, to: [{" + all + "}]}]",
			`spec.ingress: Invalid value: "number": must be of type []v1alpha2.ClusterNetworkPolicyIngressRule; spec.ingress[0].action: Invalid value: "": not a known action; spec.ingress[0].from: Required value: must specify at least one peer; ` +
				"spec.subject: Required value: must specify namespaces or pods", "deny-all deny"},
		{"unknown field of the spec", cnp, head + ", engress: [], ingress: [{action: Accept, from: [{" + all + "}]}]", "spec.engress: Forbidden: unknown field", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			apiVersion, kind, _ := strings.Cut(tt.kind, " ")
			doc, err := yaml.YAMLToJSONStrict([]byte("metadata: {name: default}\nspec: {" + tt.spec + "}"))
			if err != nil {
				t.Fatal(err)
			}
			k, _ := object.Lookup(apiVersion, kind)
			o, err := k.Decode(doc)
			if err != nil || o.Unknown != nil {
				t.Fatalf("%v, unknown %q", err, o.Unknown)
			}
			var faults []string
			for _, r := range o.Rejections {
				faults = append(faults, r.Field+": "+r.Reason)
			}
			if got := strings.Join(faults, "; "); got != tt.fault {
				t.Errorf("faults %q\nwant %q", got, tt.fault)
			}
			p := o.Value.(*policy.Policy)
			var left []string
			for _, r := range slices.Concat(p.Ingress.Rules, p.Egress.Rules) {
				text := map[policy.Action]string{policy.Allow: "allow", policy.Pass: "pass", policy.Deny: "deny"}[r.Action]
				if r.AnyPeer && r.AnyPort {
					text += "-all"
				}
				left = append(left, text)
			}
			if got := strings.Join(left, " "); got != strings.TrimSpace(tt.left) {
				t.Errorf("left %q, want %q", got, tt.left)
			}
		})
	}
}

// TestIllegibleMetadata reads policies of all kinds that have a label of a
// wrong type: the rest of what their metadata says stays.
func TestIllegibleMetadata(t *testing.T) {
	for _, tt := range []struct{ apiVersion, kind, spec string }{
		{"networking.k8s.io/v1", "NetworkPolicy", "podSelector: {}"},
		{"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "priority: 1, tier: Admin, subject: {namespaces: {}}"},
		{"policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "priority: 1, subject: {namespaces: {}}"},
		{"policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "subject: {namespaces: {}}"},
		{"cilium.io/v2", "CiliumNetworkPolicy", "endpointSelector: {}, ingress: [{}]"},
		{"cilium.io/v2", "CiliumClusterwideNetworkPolicy", "endpointSelector: {}, ingress: [{}]"},
		{"projectcalico.org/v3", "NetworkPolicy", "types: [Ingress]"},
		{"projectcalico.org/v3", "GlobalNetworkPolicy", "types: [Ingress]"},
	} {
		doc, err := yaml.YAMLToJSONStrict([]byte(`metadata: {name: default, namespace: shop, labels: {v: 1}, annotations: {sluice.dev/audit: "true"}}` + "\nspec: {" + tt.spec + "}"))
		if err != nil {
			t.Fatal(err)
		}
		k, _ := object.Lookup(tt.apiVersion, tt.kind)
		o, err := k.Decode(doc)
		if err != nil {
			t.Fatal(err)
		}
		want := policy.Origin{Kind: k.Name, Name: "default"}
		if k.Namespaced {
			want.Namespace = "shop"
		}
		if p := o.Value.(*policy.Policy); o.Origin != want || p.Origin != want || !p.Audit || !p.Rejected || len(o.Rejections) != 1 || o.Rejections[0].Object != want.String() {
			t.Errorf("%s: audit %v, rejected %v, %+v", o.Origin, p.Audit, p.Rejected, o.Rejections)
		}
	}
}
