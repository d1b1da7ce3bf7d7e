package kube

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/source/object"
)

func convertNamespace(s *Source, o runtime.Object) object.Object {
	ns := o.(*corev1.Namespace)
	v, r := object.Namespace(ns)
	return object.Object{Origin: policy.Origin{Kind: "Namespace", Name: ns.Name}, Value: v, Rejections: r}
}

func convertNode(s *Source, o runtime.Object) object.Object {
	n := o.(*corev1.Node)
	v, r := object.Node(n)
	return object.Object{Origin: policy.Origin{Kind: "Node", Name: n.Name}, Value: v, Rejections: r}
}

// convertPod drops the UID of other nodes' pods, which nothing here asks for,
// and has equal strings and label sets share their memory. Whoever may write a
// Pod writes its annotations, and only the kubelet its status: in a cluster an
// annotation gives a pod no address, which might be another's.
func convertPod(s *Source, o runtime.Object) object.Object {
	p := o.(*corev1.Pod)
	_, claims := p.Annotations[object.AddressAnnotation]
	if claims {
		bare := *p
		bare.Annotations = nil
		p = &bare
	}
	v, r := object.Pod(p)
	if claims {
		r = append(r, policy.Rejection{Object: policy.Origin{Kind: "Pod", Namespace: v.Namespace, Name: v.Name}.String(),
			Field:  "metadata.annotations[" + object.AddressAnnotation + "]",
			Reason: "Forbidden: the addresses of a pod of a cluster are those of its status", Effect: "without these addresses"})
	}
	v.Namespace, v.NodeName, v.ServiceAccount = s.intern.str(v.Namespace), s.intern.str(v.NodeName), s.intern.str(v.ServiceAccount)
	v.Labels = s.intern.labels(v.Labels)
	for i := range v.Ports {
		v.Ports[i].Name = s.intern.str(v.Ports[i].Name)
	}
	if v.NodeName != "" && v.NodeName != s.cfg.NodeName {
		v.UID = ""
	}
	return object.Object{Origin: policy.Origin{Kind: "Pod", Namespace: v.Namespace, Name: v.Name}, Value: v, Rejections: r}
}

func convertService(s *Source, o runtime.Object) object.Object {
	svc := o.(*corev1.Service)
	v, r := object.Service(svc)
	v.Labels = s.intern.labels(v.Labels)
	return object.Object{Origin: policy.Origin{Kind: "Service", Namespace: svc.Namespace, Name: svc.Name}, Value: v, Rejections: r}
}

func convertEndpointSlice(s *Source, o runtime.Object) object.Object {
	e := o.(*discoveryv1.EndpointSlice)
	v, r := object.EndpointSlice(e)
	return object.Object{Origin: policy.Origin{Kind: "EndpointSlice", Namespace: e.Namespace, Name: e.Name}, Value: v, Rejections: r}
}

func convertNetworkPolicy(s *Source, o runtime.Object) object.Object {
	np := o.(*networkingv1.NetworkPolicy)
	v, r := networkpolicy.Convert(np)
	return object.Object{Origin: v.Origin, Value: v, Rejections: r}
}
