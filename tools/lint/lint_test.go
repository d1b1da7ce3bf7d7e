package lint_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/tools/lint"
	"github.com/sluice-net/sluice/tools/verdict"
	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

func load(t *testing.T, random *verdicttest.Cluster) *verdict.Cluster {
	t.Helper()
	path, err := random.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := verdict.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verdicts answers all questions about a cluster that a test can think of.
func verdicts(t *testing.T, c *verdict.Cluster, random *verdicttest.Cluster) []string {
	t.Helper()
	var names []string
	for _, p := range random.Pods {
		names = append(names, p.Namespace+"/"+p.Name)
	}
	for _, a := range append(slices.Clone(verdicttest.Outside), "198.51.100.0", "10.0.0.4", "fd00::4", "192.168.0.1") {
		names = append(names, "ip:"+a)
	}
	var out []string
	for _, from := range names {
		for _, to := range names {
			src, err1 := c.End(from)
			dst, err2 := c.End(to)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			pairs, _ := verdict.Pairs(src, dst) // no family in common: no question
			for _, pair := range pairs {
				for _, port := range verdicttest.Ports {
					for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP, policy.ICMP} {
						f := verdict.Flow{Protocol: proto, Port: uint16(port)}
						d, err := c.Judge(src, dst, pair, f)
						if err != nil {
							t.Fatal(err)
						}
						out = append(out, fmt.Sprint(from, pair.Src, to, pair.Dst, f, d.Allowed, d.Audit))
					}
				}
			}
		}
	}
	return out
}

// TestNeedless removes what lint calls without effect, or never deciding, or
// selecting nothing: no verdict may change.
func TestNeedless(t *testing.T) {
	tried := map[string]int{}
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 13))
		random := verdicttest.Random(r)
		c := load(t, random)
		before := verdicts(t, c, random)
		for _, f := range lint.Run(c) {
			less := without(random, f)
			if less == nil {
				continue
			}
			tried[f.Check]++
			if after := verdicts(t, load(t, less), less); !slices.Equal(before, after) {
				for i := range before {
					if before[i] != after[i] {
						t.Fatalf("seed %d: %+v: before %s, without it %s", seed, f, before[i], after[i])
					}
				}
			}
		}
	}
	for _, check := range []string{lint.CheckNoEffect, lint.CheckShadowed, lint.CheckSelectsNone} {
		if tried[check] < 5 {
			t.Errorf("%s was found %d times only: not tested", check, tried[check])
		}
	}
}

// without returns the cluster without the policy or rule of a finding, nil if
// the finding is about something else.
func without(c *verdicttest.Cluster, f lint.Finding) *verdicttest.Cluster {
	i := slices.IndexFunc(c.Policies, func(p *networkingv1.NetworkPolicy) bool {
		return "NetworkPolicy "+p.Namespace+"/"+p.Name == f.Object
	})
	if i < 0 || f.Check == lint.CheckNamedPort {
		return nil
	}
	less := *c
	less.Policies = slices.Clone(c.Policies)
	if f.Field == "" || f.Field == "spec" || f.Check == lint.CheckNamespace {
		less.Policies = slices.Delete(less.Policies, i, i+1)
		return &less
	}
	var index, peer int
	p := c.Policies[i].DeepCopy()
	less.Policies[i] = p
	if len(p.Spec.PolicyTypes) == 0 { // as the API would fill them in
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(p.Spec.Egress) > 0 {
			p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	switch n, _ := fmt.Sscanf(f.Field, "spec.ingress[%d].from[%d]", &index, &peer); n {
	case 1:
		p.Spec.Ingress = slices.Delete(p.Spec.Ingress, index, index+1)
		return &less
	case 2:
		if from := &p.Spec.Ingress[index].From; len(*from) > 1 {
			*from = slices.Delete(*from, peer, peer+1)
		} else {
			p.Spec.Ingress = slices.Delete(p.Spec.Ingress, index, index+1)
		}
		return &less
	}
	switch n, _ := fmt.Sscanf(f.Field, "spec.egress[%d].to[%d]", &index, &peer); n {
	case 1:
		p.Spec.Egress = slices.Delete(p.Spec.Egress, index, index+1)
		return &less
	case 2:
		if to := &p.Spec.Egress[index].To; len(*to) > 1 {
			*to = slices.Delete(*to, peer, peer+1)
		} else {
			p.Spec.Egress = slices.Delete(p.Spec.Egress, index, index+1)
		}
		return &less
	}
	return nil
}

const base = `
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: web, labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: api, labels: {app: api}}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
`

func TestChecks(t *testing.T) {
	tests := []struct {
		name, manifest string
		want           []string // "severity check object field", those of pods without policy aside
	}{
		{"a sound policy", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: http}]}]}}`, nil},
		{"broken document", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {`, []string{"error invalid  "}},
		{"invalid", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {}, policyTypes: [Both]}}`,
			[]string{"error invalid NetworkPolicy a/p spec.policyTypes"}},
		{"named port on the wrong side", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: http}]}]}}`,
			[]string{"warning no-such-port NetworkPolicy a/p spec.egress[0].ports[0]"}},
		{"named port of another protocol", `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http, protocol: UDP}]}]}}`,
			[]string{"warning no-such-port NetworkPolicy a/p spec.ingress[0].ports[0]"}},
		{"denial before an allowance", `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}, {action: Accept, from: [{pods: {podSelector: {matchLabels: {app: web}}, namespaceSelector: {}}}]}]}}`,
			[]string{"warning shadowed-rule ClusterNetworkPolicy c spec.ingress[1]"}},
		{"tier before a policy", `
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}}`,
			[]string{"warning shadowed-rule NetworkPolicy a/p spec.ingress[0]"}},
		{"Cilium's rules", `
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {namespace: a, name: p}, spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: api}}], toPorts: [{ports: [{port: "80"}]}]}]}}`, nil},
		{"Cilium's rule about nobody", `
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {namespace: a, name: p}, specs: [{endpointSelector: {matchLabels: {app: web}}, ingress: [{fromEndpoints: [{matchLabels: {app: nobody}}]}]}]}`,
			[]string{"warning selects-nothing CiliumNetworkPolicy a/p specs[0].ingress[0]"}},
		{"names that are not known", `
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {namespace: a, name: p}, spec: {endpointSelector: {}, enableDefaultDeny: {egress: false}, egress: [{toFQDNs: [{matchName: example.com}]}]}}
---
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [example.com]}]}]}}`, nil},
		{"named port of a ClusterNetworkPolicy", `
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: nope}]}]}}`,
			[]string{"warning no-such-port ClusterNetworkPolicy c spec.ingress[0].protocols[0]", "info no-effect ClusterNetworkPolicy c "}},
		{"labels that no selector can name", `
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {"bad key!": x}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: no label}}}`,
			[]string{"error invalid Namespace a metadata.labels", "error invalid Node n1 metadata.labels"}},
		{"names and addresses", `
{apiVersion: v1, kind: Namespace, metadata: {name: a.b}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: Upper}, status: {podIPs: [{ip: 127.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: a, name: with.dots}, status: {podIPs: [{ip: 10.0.0.3}]}}`,
			[]string{"error invalid Namespace a.b metadata.name", "error invalid Pod a/Upper metadata.name", "error invalid Pod a/Upper status.podIPs"}},
		{"same policy twice", `
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: p}, spec: {podSelector: {}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: a, name: q}, spec: {podSelector: {}}}`,
			[]string{"info no-effect NetworkPolicy a/p ", "info no-effect NetworkPolicy a/q "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "all.yaml")
			if err := os.WriteFile(path, []byte(base+tt.manifest), 0o644); err != nil {
				t.Fatal(err)
			}
			c, err := verdict.Load(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range lint.Run(c) {
				if f.Check != lint.CheckPodUnselected {
					got = append(got, strings.Join([]string{string(f.Severity), f.Check, f.Object, f.Field}, " "))
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestShadowedByPass: what passes a tier on is named as what decided there.
func TestShadowedByPass(t *testing.T) {
	path := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(path, []byte(base+`{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c},
  spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := verdict.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range lint.Run(c) {
		if f.Check == lint.CheckShadowed {
			got = append(got, f.Field+" "+f.Message)
		}
	}
	want := []string{"spec.ingress[1] never decides: all that it matches is decided before, by ClusterNetworkPolicy c ingress[0]"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
