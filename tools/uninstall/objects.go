package uninstall

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// objects are deleted in this order; namespaced ones in the agents' namespace.
var objects = []struct {
	schema.GroupVersionResource
	name    string // a name, or its beginning if it ends in *
	cluster bool
}{
	{daemonSets, Name, false},
	{schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: "podmonitors"}, Name, false},
	{schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: "servicemonitors"}, Name, false},
	{schema.GroupVersionResource{Version: "v1", Resource: "services"}, Name, false},
	{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, Name + "*", false},
	{schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, Name + "-reports", false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, Name, false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, Name, false},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, Name, true},
	{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, Name, true},
	{schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, Name, false},
}

// remove deletes the objects; one that isn't there is none.
func remove(ctx context.Context, client dynamic.Interface, o Options) error {
	var errs []error
	for _, x := range objects {
		var at dynamic.ResourceInterface = client.Resource(x.GroupVersionResource).Namespace(o.Namespace)
		if x.cluster {
			at = client.Resource(x.GroupVersionResource)
		}
		names := []string{x.name}
		if prefix, many := strings.CutSuffix(x.name, "*"); many {
			names = nil
			list, err := at.List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=sluice,app.kubernetes.io/component=agent"})
			if err != nil {
				errs = append(errs, fmt.Errorf("list %s: %w", x.Resource, err))
				continue
			}
			for _, item := range list.Items {
				if strings.HasPrefix(item.GetName(), prefix) {
					names = append(names, item.GetName())
				}
			}
		}
		background := metav1.DeletePropagationBackground
		for _, name := range names {
			err := at.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &background})
			switch {
			case err == nil:
				o.Say("deleted " + x.Resource + " " + name)
			case !apierrors.IsNotFound(err):
				errs = append(errs, fmt.Errorf("delete %s %s: %w", x.Resource, name, err))
			}
		}
	}
	return errors.Join(errs...)
}
