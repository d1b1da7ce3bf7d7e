// Package uninstall takes Sluice off a cluster. The agents' DaemonSet is turned
// into one that cleans: on each node the agent ends, the CNI plugin is taken out
// of the node's configuration, and programs, maps and steering ports go. When
// all nodes are clean the objects are deleted.
//
// It stops and says so when a node does not become clean; run again, it goes on
// where it was.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// Name is that of the DaemonSet and of all that belongs to it.
const Name = "sluice-agent"

// Options say what to remove.
type Options struct {
	Namespace string
	NodesOnly bool          // leave the objects to who has made them
	Timeout   time.Duration // until all nodes are clean
	Say       func(string)
}

// ErrHelm says that helm has made the objects, and has to delete them.
var ErrHelm = errors.New("helm has installed it: run helm uninstall")

// pollEvery is how often the DaemonSet is looked at.
const pollEvery = time.Second

var daemonSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}

// Run removes.
func Run(ctx context.Context, cfg *rest.Config, o Options) error {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	err = clean(ctx, client, o)
	if err != nil || o.NodesOnly {
		return err
	}
	return remove(ctx, client, o)
}

// clean has all nodes cleaned.
func clean(ctx context.Context, client dynamic.Interface, o Options) error {
	at := client.Resource(daemonSets).Namespace(o.Namespace)
	for {
		u, err := at.Get(ctx, Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			o.Say("no agents in the cluster")
			return nil
		}
		if err != nil {
			return fmt.Errorf("get DaemonSet %s/%s: %w", o.Namespace, Name, err)
		}
		if u.GetLabels()["app.kubernetes.io/managed-by"] == "Helm" && !o.NodesOnly {
			return ErrHelm
		}
		next, err := cleaning(u) // where an earlier run has got here, that changes nothing
		if err != nil {
			return err
		}
		_, err = at.Update(ctx, next, metav1.UpdateOptions{FieldManager: "sluice-uninstall"})
		if apierrors.IsConflict(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("have DaemonSet %s/%s clean: %w", o.Namespace, Name, err)
		}
		break
	}
	return await(ctx, at, o)
}

// cleaning returns the DaemonSet that cleans the nodes of one.
func cleaning(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	var ds appsv1.DaemonSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &ds); err != nil {
		return nil, fmt.Errorf("read DaemonSet: %w", err)
	}
	if err := Clean(&ds); err != nil {
		return nil, err
	}
	out, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&ds)
	if err != nil {
		return nil, fmt.Errorf("write DaemonSet: %w", err)
	}
	return &unstructured.Unstructured{Object: out}, nil
}

// Clean turns the agents' DaemonSet into one whose pods are ready when their
// node is clean. Only command lines change, and how fast pods are replaced: image,
// mounts, rights and probes stay what they are, and whoever applies the manifests
// again has agents again, with nothing left in them of what cleaned. One that
// cleans stays as it is.
func Clean(ds *appsv1.DaemonSet) error {
	spec := &ds.Spec.Template.Spec
	agent := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == "agent" })
	if agent < 0 {
		return fmt.Errorf("DaemonSet %s has no container named agent", ds.Name)
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if at := slices.Index(c.Command, "install"); at > 0 && c.Command[at-1] == "cni" {
			c.Command[at] = "uninstall"
			c.Command = slices.DeleteFunc(c.Command, func(arg string) bool {
				return strings.HasPrefix(arg, "--") && !strings.HasPrefix(arg, "--cni-")
			})
		}
	}
	for _, flag := range []string{"--cleanup", "--wait"} {
		if c := &spec.Containers[agent]; !slices.Contains(c.Command, flag) {
			c.Command = append(c.Command, flag)
		}
	}
	all := intstr.FromString("100%")
	ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &all}}
	ds.Spec.MinReadySeconds = 0
	return nil
}

// await returns when all nodes are clean.
func await(ctx context.Context, at dynamic.ResourceInterface, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	said := ""
	var last error
	for {
		u, err := at.Get(ctx, Name, metav1.GetOptions{})
		if err == nil {
			var ds appsv1.DaemonSet
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &ds); err != nil {
				return fmt.Errorf("read DaemonSet: %w", err)
			}
			s := ds.Status
			clean := min(s.UpdatedNumberScheduled, s.NumberReady)
			if s.ObservedGeneration < ds.Generation {
				clean = 0 // what is reported is of before
			}
			text := fmt.Sprintf("%d of %d nodes are clean", clean, s.DesiredNumberScheduled)
			if text != said && s.ObservedGeneration >= ds.Generation {
				o.Say(text)
			}
			said, last = text, nil
			if s.ObservedGeneration >= ds.Generation && clean >= s.DesiredNumberScheduled {
				return nil
			}
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("not all nodes are clean after %v: %s; see kubectl -n %s get pods -o wide -l app.kubernetes.io/component=agent, and run it again",
				o.Timeout, said, o.Namespace), last)
		case <-time.After(pollEvery):
		}
	}
}
