package kube

import (
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-net/sluice/control/policy/networkpolicy"
	"github.com/sluice-net/sluice/control/source/object"
)

// InCluster as Config.Kubeconfig means the service account of the pod that the
// agent runs in.
const InCluster = "in-cluster"

// restConfig says how to reach the API server.
func restConfig(kubeconfig string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if kubeconfig == InCluster {
		cfg, err = rest.InClusterConfig()
	} else {
		cfg, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.UserAgent = "sluice-agent"
	cfg.QPS, cfg.Burst = 50, 100
	return cfg, nil
}

// The types that are decoded; Kubernetes' full scheme has a hundred times as
// many.
var (
	scheme = runtime.NewScheme()
	codecs = serializer.NewCodecFactory(scheme)
	params = metav1.ParameterCodec
)

func init() {
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(coordinationv1.AddToScheme(scheme))
	utilruntime.Must(discoveryv1.AddToScheme(scheme))
	utilruntime.Must(networkingv1.AddToScheme(scheme))
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
}

// resource is a resource that every API server has.
type resource struct {
	apiVersion string
	name       string // plural
	kind       string // Origin.Kind
	list       func() runtime.Object
	convert    func(*Source, runtime.Object) object.Object
}

var builtins = []resource{
	{"v1", "namespaces", "Namespace", newList[corev1.NamespaceList], convertNamespace},
	{"v1", "nodes", "Node", newList[corev1.NodeList], convertNode},
	{"v1", "pods", "Pod", newList[corev1.PodList], convertPod},
	{"v1", "services", "Service", newList[corev1.ServiceList], convertService},
	{"discovery.k8s.io/v1", "endpointslices", "EndpointSlice", newList[discoveryv1.EndpointSliceList], convertEndpointSlice},
	{"networking.k8s.io/v1", "networkpolicies", networkpolicy.Kind, newList[networkingv1.NetworkPolicyList], convertNetworkPolicy},
}

func newList[T any, P interface {
	*T
	runtime.Object
}]() runtime.Object {
	return P(new(T))
}

// builtinClients returns a client for each group that builtins are in. They
// speak protobuf.
func builtinClients(rc *rest.Config) (map[string]rest.Interface, error) {
	out := map[string]rest.Interface{}
	for _, r := range builtins {
		if out[r.apiVersion] != nil {
			continue
		}
		gv, err := schema.ParseGroupVersion(r.apiVersion)
		if err != nil {
			return nil, err
		}
		c := rest.CopyConfig(rc)
		c.GroupVersion, c.APIPath = &gv, "/apis"
		if gv.Group == "" {
			c.APIPath = "/api"
		}
		c.NegotiatedSerializer = codecs.WithoutConversion()
		c.ContentType = runtime.ContentTypeProtobuf
		c.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
		client, err := rest.RESTClientFor(c)
		if err != nil {
			return nil, fmt.Errorf("make client for %s: %w", r.apiVersion, err)
		}
		out[r.apiVersion] = client
	}
	return out, nil
}

// builtinFeed returns the feed of a resource that every API server has.
func (s *Source) builtinFeed(r resource) *feed {
	client := s.built[r.apiVersion]
	f := s.newFeed(r.name, r.kind, func(o runtime.Object) object.Object { return r.convert(s, o) })
	f.apiVersion = r.apiVersion
	f.lister = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		list := r.list()
		return list, client.Get().Resource(r.name).VersionedParams(&opts, params).Do(ctx).Into(list)
	}
	f.watcher = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		opts.Watch = true
		return client.Get().Resource(r.name).VersionedParams(&opts, params).Watch(ctx)
	}
	return f
}
