package compile_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy/clusternetworkpolicy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// tiers is a cluster with ClusterNetworkPolicies, sorted by priority.
type tiers struct {
	*cluster
	policies []*v1alpha2.ClusterNetworkPolicy
}

// judge walks the tiers as the API's text says: the first rule that matches
// decides or passes to the next tier; a NetworkPolicy always decides for the
// pods that it selects.
func (c *tiers) judge(dir rule.Direction, pod *corev1.Pod, remote netip.Addr, proto corev1.Protocol, port uint16) verdict {
	if dir == rule.Ingress && c.isNode(pod.Spec.NodeName, remote) {
		return verdict{allow: true}
	}
	if v, ok := c.judgeTier(v1alpha2.AdminTier, dir, pod, remote, proto, port); ok {
		return v
	}
	if v := c.cluster.judge(dir, pod, remote, proto, port); len(v.refs) > 0 {
		return v
	}
	if v, ok := c.judgeTier(v1alpha2.BaselineTier, dir, pod, remote, proto, port); ok {
		return v
	}
	return verdict{allow: true}
}

func (c *tiers) judgeTier(tier v1alpha2.Tier, dir rule.Direction, pod *corev1.Pod, remote netip.Addr, proto corev1.Protocol, port uint16) (verdict, bool) {
	names := map[v1alpha2.Tier]string{v1alpha2.AdminTier: "admin", v1alpha2.BaselineTier: "baseline"}
	for _, p := range c.policies {
		if p.Spec.Tier != tier || !c.podMatches(p.Spec.Subject.Namespaces, p.Spec.Subject.Pods, pod) {
			continue
		}
		for i, r := range common(p, dir) {
			hit := slices.ContainsFunc(r.To, func(peer v1alpha2.ClusterNetworkPolicyEgressPeer) bool {
				return c.hits(dir, peer, r.Protocols, pod, remote, proto, port)
			})
			if !hit {
				continue
			}
			if r.Action == v1alpha2.ClusterNetworkPolicyRuleActionPass {
				return verdict{}, false
			}
			ref := rule.PolicyRef{Kind: "ClusterNetworkPolicy", Name: p.Name, Rule: i, Direction: dir, Tier: names[tier]}
			return verdict{allow: r.Action == v1alpha2.ClusterNetworkPolicyRuleActionAccept, refs: []rule.PolicyRef{ref}}, true
		}
	}
	return verdict{}, false
}

// common gives the rules of both directions the richer type.
func common(p *v1alpha2.ClusterNetworkPolicy, dir rule.Direction) []v1alpha2.ClusterNetworkPolicyEgressRule {
	if dir == rule.Egress {
		return p.Spec.Egress
	}
	var out []v1alpha2.ClusterNetworkPolicyEgressRule
	for _, r := range p.Spec.Ingress {
		e := v1alpha2.ClusterNetworkPolicyEgressRule{Action: r.Action, Protocols: r.Protocols}
		for _, f := range r.From {
			e.To = append(e.To, v1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: f.Namespaces, Pods: f.Pods})
		}
		out = append(out, e)
	}
	return out
}

func (c *tiers) podMatches(ns *metav1.LabelSelector, pods *v1alpha2.NamespacedPod, pod *corev1.Pod) bool {
	nsLabels := map[string]string{}
	for k, v := range c.namespaces[pod.Namespace] {
		nsLabels[k] = v
	}
	nsLabels["kubernetes.io/metadata.name"] = pod.Namespace
	if ns != nil {
		return selects(ns, nsLabels)
	}
	return pods != nil && selects(&pods.NamespaceSelector, nsLabels) && selects(&pods.PodSelector, pod.Labels)
}

func (c *tiers) hits(dir rule.Direction, peer v1alpha2.ClusterNetworkPolicyEgressPeer, protocols []v1alpha2.ClusterNetworkPolicyProtocol,
	pod *corev1.Pod, remote netip.Addr, proto corev1.Protocol, port uint16) bool {
	if slices.ContainsFunc(peer.Networks, func(s v1alpha2.CIDR) bool { return inCIDR(string(s), remote) }) {
		return fits(protocols, nil, proto, port)
	}
	for _, n := range c.nodes {
		if peer.Nodes != nil && selects(peer.Nodes, n.Labels) && n.Status.Addresses[0].Address == remote.String() {
			return fits(protocols, nil, proto, port)
		}
	}
	for _, other := range c.pods {
		if other.Spec.HostNetwork || other.Status.Phase == corev1.PodSucceeded || other.Status.Phase == corev1.PodFailed ||
			!has(other, remote) || !c.podMatches(peer.Namespaces, peer.Pods, other) {
			continue
		}
		dst := other
		if dir == rule.Ingress {
			dst = pod
		}
		if fits(protocols, dst, proto, port) {
			return true
		}
	}
	return false
}

// fits asks whether protocol and port, on the pod that is reached, are listed.
func fits(protocols []v1alpha2.ClusterNetworkPolicyProtocol, dst *corev1.Pod, proto corev1.Protocol, port uint16) bool {
	inRange := func(want corev1.Protocol, p *v1alpha2.Port) bool {
		if want != proto {
			return false
		}
		if p.Range != nil {
			return p.Range.Start <= int32(port) && int32(port) <= p.Range.End
		}
		return p.Number == int32(port)
	}
	for _, p := range protocols {
		switch {
		case p.TCP != nil && inRange(corev1.ProtocolTCP, p.TCP.DestinationPort),
			p.UDP != nil && inRange(corev1.ProtocolUDP, p.UDP.DestinationPort),
			p.SCTP != nil && inRange(corev1.ProtocolSCTP, p.SCTP.DestinationPort):
			return true
		}
		if p.DestinationNamedPort == "" || dst == nil {
			continue
		}
		for _, ct := range dst.Spec.Containers {
			for _, cp := range ct.Ports {
				if cp.Name == p.DestinationNamedPort && cp.Protocol == proto && cp.ContainerPort == int32(port) {
					return true
				}
			}
		}
	}
	return len(protocols) == 0
}

func randomTiers(r *rand.Rand) *tiers {
	c := &tiers{cluster: randomCluster(r)}
	for i, n := range c.nodes {
		n.Labels = map[string]string{"app": someValues[i]}
	}
	for i, priority := range r.Perm(1 + r.IntN(5)) {
		p := &v1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("cnp%d", i)}}
		p.Spec.Tier = pick(r, []v1alpha2.Tier{v1alpha2.AdminTier, v1alpha2.BaselineTier})
		p.Spec.Priority = int32(priority)
		s := randomPeer(r, 2)
		p.Spec.Subject = v1alpha2.ClusterNetworkPolicySubject{Namespaces: s.Namespaces, Pods: s.Pods}
		for range r.IntN(4) {
			e := randomRule(r, 2)
			in := v1alpha2.ClusterNetworkPolicyIngressRule{Action: e.Action, Protocols: e.Protocols}
			for _, x := range e.To {
				in.From = append(in.From, v1alpha2.ClusterNetworkPolicyIngressPeer{Namespaces: x.Namespaces, Pods: x.Pods})
			}
			p.Spec.Ingress = append(p.Spec.Ingress, in)
		}
		for range r.IntN(4) {
			p.Spec.Egress = append(p.Spec.Egress, randomRule(r, 4))
		}
		c.policies = append(c.policies, p)
	}
	slices.SortFunc(c.policies, func(a, b *v1alpha2.ClusterNetworkPolicy) int { return cmp.Compare(a.Spec.Priority, b.Spec.Priority) })
	return c
}

func randomRule(r *rand.Rand, kinds int) v1alpha2.ClusterNetworkPolicyEgressRule {
	out := v1alpha2.ClusterNetworkPolicyEgressRule{Action: pick(r, []v1alpha2.ClusterNetworkPolicyRuleAction{
		v1alpha2.ClusterNetworkPolicyRuleActionAccept, v1alpha2.ClusterNetworkPolicyRuleActionDeny, v1alpha2.ClusterNetworkPolicyRuleActionPass})}
	named := true
	for range 1 + r.IntN(2) {
		p := randomPeer(r, kinds)
		named = named && p.Nodes == nil && p.Networks == nil
		out.To = append(out.To, p)
	}
	for range r.IntN(3) {
		var p v1alpha2.ClusterNetworkPolicyProtocol
		port := &v1alpha2.Port{Number: pick(r, somePorts)}
		if r.IntN(2) == 0 {
			port = &v1alpha2.Port{Range: &v1alpha2.PortRange{Start: 53, End: pick(r, []int32{54, 80, 8080})}}
		}
		switch n := r.IntN(4); {
		case n == 0:
			p.TCP = &v1alpha2.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
		case n == 1:
			p.UDP = &v1alpha2.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
		case n == 2 || !named:
			p.SCTP = &v1alpha2.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
		default:
			p.DestinationNamedPort = pick(r, somePortNames)
		}
		out.Protocols = append(out.Protocols, p)
	}
	return out
}

func randomPeer(r *rand.Rand, kinds int) v1alpha2.ClusterNetworkPolicyEgressPeer {
	s, ns := randomSelector(r), randomSelector(r)
	switch r.IntN(kinds) {
	case 0:
		return v1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: &ns}
	case 1:
		return v1alpha2.ClusterNetworkPolicyEgressPeer{Pods: &v1alpha2.NamespacedPod{NamespaceSelector: ns, PodSelector: s}}
	case 2:
		return v1alpha2.ClusterNetworkPolicyEgressPeer{Nodes: &s}
	}
	first := r.IntN(len(someCIDRs))
	second := (first + 1 + r.IntN(len(someCIDRs)-1)) % len(someCIDRs) // another, as the API asks
	return v1alpha2.ClusterNetworkPolicyEgressPeer{Networks: []v1alpha2.CIDR{
		v1alpha2.CIDR(someCIDRs[first]), v1alpha2.CIDR(someCIDRs[second])}}
}

func TestTiersEqualOracle(t *testing.T) {
	for seed := range uint64(800) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := randomTiers(r)
		st := store.New()
		c.fill(t, st)
		st.Update(func(tx *store.Tx) {
			for _, cnp := range c.policies {
				p, rejections := clusternetworkpolicy.Convert(cnp)
				if len(rejections) > 0 {
					t.Fatalf("seed %d: %v", seed, rejections)
				}
				tx.SetPolicy(p)
			}
		})
		endpoints := c.endpoints()
		if len(endpoints) == 0 {
			continue
		}
		set := compileNow(compile.New(compile.Config{}), st, endpoints)
		checkForm(t, set)
		for range 150 {
			e, dir, remote, proto := pick(r, endpoints), rule.Direction(r.IntN(2)), pick(r, someAddrs), pick(r, someProtocols)
			port := uint16(pick(r, somePorts) + int32(r.IntN(3)) - 1)
			want := c.judge(dir, c.pods[e.ID-1], remote, proto, port)
			action, audit, _, cause := ruletest.Evaluate(set, e.ID, dir, remote, uint8(numbersOf[proto]), port)
			got := verdict{action == rule.Allow, audit, set.Causes[cause].Refs}
			what := fmt.Sprintf("seed %d: %s %s, remote %s, %s %d", seed, dir, e, remote, proto, port)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: the Set says %+v, the oracle %+v", what, got, want)
			}
			c.compareExplain(t, st, e, dir, remote, proto, port, want, what)
		}
	}
}
