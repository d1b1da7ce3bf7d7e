package clusternetworkpolicy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/sluice-net/sluice/control/policy/clusterrule"
)

// peer converts what subjects and peers have in common.
func peer(namespaces *metav1.LabelSelector, pods *v1alpha2.NamespacedPod) clusterrule.Peer {
	p := clusterrule.Peer{Namespaces: namespaces}
	if pods != nil {
		p.PodNamespaces, p.Pods = &pods.NamespaceSelector, &pods.PodSelector
	}
	return p
}
