package object

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/calico"
	"github.com/sluice-net/sluice/control/store"
)

// Account converts a ServiceAccount, or what metadata there is of one.
func Account[P metav1.Object](obj P) (*store.Account, []policy.Rejection) {
	f := faults{kind: "ServiceAccount", namespace: obj.GetNamespace(), name: obj.GetName()}
	f.needName()
	return &store.Account{Namespace: obj.GetNamespace(), Name: obj.GetName(), Labels: obj.GetLabels()}, f.list
}

// Tier converts a Tier of Calico's. Those that there are anyway have no value.
func Tier(t *calico.Tier) (any, []policy.Rejection) {
	f := faults{kind: calico.TierKind, name: t.Name}
	f.needName()
	name, order, pass, ok, rejections := t.Value()
	rejections = append(f.list, rejections...)
	if !ok {
		return nil, rejections
	}
	return &store.Tier{Name: name, Order: order, Pass: pass}, rejections
}

func networkSet(kind string) func(*calico.NetworkSet) (*store.NetworkSet, []policy.Rejection) {
	return func(s *calico.NetworkSet) (*store.NetworkSet, []policy.Rejection) {
		f := faults{kind: kind, namespace: s.Namespace, name: s.Name}
		f.needName()
		nets, labels, rejections := s.CIDRs(kind)
		return &store.NetworkSet{Namespace: s.Namespace, Name: s.Name, Labels: labels, CIDRs: nets}, append(f.list, rejections...)
	}
}

func hostEndpoint(h *calico.HostEndpoint) (any, []policy.Rejection) { return nil, h.Refuse() }
