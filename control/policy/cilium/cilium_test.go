package cilium_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/text"
	"github.com/sluice-net/sluice/control/source/object"
)

// left says what is in force of an object: part by part whether it isolates,
// and its rules.
func left(p *policy.Policy) string {
	var out []string
	for _, part := range append([]*policy.Policy{p}, p.Parts...) {
		for _, x := range []struct {
			direction string
			policy.Section
		}{{"ingress", part.Ingress}, {"egress", part.Egress}} {
			if !x.Applies {
				continue
			}
			words := []string{part.Tier.Name, x.direction}
			if x.Default == policy.Deny {
				words = append(words, "isolated")
			}
			for _, r := range x.Rules {
				peers, ports := "any", "any"
				if !r.AnyPeer {
					peers = strings.Join(text.Peers(r.Peers), " or ")
				}
				if !r.AnyPort {
					ports = strings.Join(text.Ports(r.Ports), " or ")
				}
				words = append(words, fmt.Sprintf("%s[%d] %s: %s on %s", r.Path, r.Index,
					map[policy.Action]string{policy.Allow: "allow", policy.Deny: "deny"}[r.Action], peers, ports))
			}
			out = append(out, strings.Join(words, ", "))
		}
	}
	return strings.Join(out, "\n")
}

// TestRefused reads objects that are not in force as written: what they deny is
// denied all the same, before what others allow.
func TestRefused(t *testing.T) {
	const (
		web  = "endpointSelector: {matchLabels: {app: web}}, "
		http = "[{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}]}]"
	)
	tests := []struct{ name, object, fields, left string }{
		{"nothing denied", "spec: {" + web + "ingress: " + http + "}", "spec.ingress[0].toPorts[0].rules.http",
			"networkpolicy, ingress, isolated"},
		{"L7", "spec: {" + web + "ingressDeny: [{fromCIDR: [192.0.2.0/24]}], ingress: " + http + "}", "spec.ingress[0].toPorts[0].rules.http",
			"networkpolicy, ingress, isolated, spec.ingressDeny[0] deny: 192.0.2.0/24, what is no pod and no node on any"},
		{"the other direction", "spec: {" + web + "ingressDeny: [{toPorts: [{ports: [{port: '22', protocol: TCP}]}]}], egress: " + http + "}", "spec.egress[0].toPorts[0].rules.http",
			"networkpolicy, ingress, isolated, spec.ingressDeny[0] deny: any on 22/TCP\n" +
				"networkpolicy, egress, isolated\n" +
				"own-node, ingress, spec.ingressDeny[0] deny: the pod's own node on 22/TCP"},
		{"authentication", "spec: {" + web + "egressDeny: [{toEntities: [world]}], ingress: [{fromEntities: [all], authentication: {mode: required}}]}", "spec.ingress[0].authentication.mode",
			"networkpolicy, ingress, isolated\n" +
				"networkpolicy, egress, isolated, spec.egressDeny[0] deny: outside of the cluster by IPv4 or outside of the cluster by IPv6 on any"},
		{"denial of groups", "spec: {" + web + "egressDeny: [{toCIDR: [192.0.2.0/24]}, {toGroups: [{aws: {}}]}]}", "spec.egressDeny[1].toGroups[0]",
			"networkpolicy, egress, isolated, spec.egressDeny[0] deny: 192.0.2.0/24, what is no pod and no node on any, spec.egressDeny[1] deny: any on any"},
		{"faulty denial, but not of the node", "spec: {" + web + "ingressDeny: [{fromCIDR: [192.0.2.0/33]}, {fromEntities: [host]}, 7]}", "spec.ingressDeny[0].fromCIDR[0] spec.ingressDeny[2]",
			"networkpolicy, ingress, isolated, spec.ingressDeny[0] deny: any on any, spec.ingressDeny[1] deny: the pod's own node on any, spec.ingressDeny[2] deny: any on any\n" +
				"own-node, ingress, spec.ingressDeny[1] deny: the pod's own node on any"},
		{"range from a name", "spec: {" + web + "ingressDeny: [{fromCIDR: [192.0.2.0/24], toPorts: [{ports: [{port: http, endPort: 0}, {port: http, endPort: 8080}]}]}], ingress: [{}]}", "spec.ingressDeny[0].toPorts[0].ports[1].endPort",
			"networkpolicy, ingress, isolated, spec.ingressDeny[0] deny: any on any"},
		{"illegible denials", "spec: {" + web + "ingressDeny: {}, egress: [{}]}", "spec.ingressDeny",
			"networkpolicy, ingress, isolated, spec.ingressDeny[-1] deny: any on any\n" +
				"networkpolicy, egress, isolated"},
		{"illegible spec", "spec: []", "spec", "networkpolicy, ingress, isolated\nnetworkpolicy, egress, isolated"},
		{"illegible specs", "specs: {}", "specs", "networkpolicy, ingress, isolated\nnetworkpolicy, egress, isolated"},
		{"illegible metadata", "metadata: {name: p, labels: 7}\nspec: {" + web + "ingressDeny: [{toPorts: [{ports: [{port: '0', protocol: UDP}]}]}]}", "",
			"networkpolicy, ingress, isolated, spec.ingressDeny[0] deny: any on any/UDP\n" +
				"own-node, ingress, spec.ingressDeny[0] deny: the pod's own node on any/UDP"},
		{"another spec", "specs: [{" + web + "ingressDeny: [{fromCIDR: [192.0.2.0/24]}]}, {endpointSelector: {}, egress: " + http + "}]", "specs[1].egress[0].toPorts[0].rules.http",
			"networkpolicy, ingress, isolated, specs[0].ingressDeny[0] deny: 192.0.2.0/24, what is no pod and no node on any\n" +
				"networkpolicy, egress, isolated"},
	}
	for _, tt := range tests {
		for _, kind := range []string{"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				doc := tt.object
				if !strings.HasPrefix(doc, "metadata") {
					doc = "metadata: {name: p}\n" + doc
				}
				raw, err := yaml.YAMLToJSON([]byte(doc))
				if err != nil {
					t.Fatal(err)
				}
				k, _ := object.Lookup("cilium.io/v2", kind)
				o, err := k.Decode(raw)
				if err != nil {
					t.Fatal(err)
				}
				var fields []string
				for _, r := range o.Rejections {
					fields = append(fields, r.Field)
				}
				if got := strings.Join(slices.Compact(fields), " "); got != tt.fields {
					t.Errorf("faults at %q, want %q", got, tt.fields)
				}
				p := o.Value.(*policy.Policy)
				if got := left(p); !p.Rejected || got != tt.left {
					t.Errorf("rejected %v, left\n%s\nwant\n%s", p.Rejected, got, tt.left)
				}
			})
		}
	}
}
