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

// Cleaning marks a DaemonSet that cleans.
const Cleaning = "sluice.dev/cleaning"

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
		if u.GetAnnotations()[Cleaning] != "" {
			break // an earlier run has got here
		}
		next, err := cleaning(u)
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
// node is clean. Image, mounts, rights and tolerations stay what they are.
func Clean(ds *appsv1.DaemonSet) error {
	spec := &ds.Spec.Template.Spec
	agent := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == "agent" })
	if agent < 0 {
		return fmt.Errorf("DaemonSet %s has no container named agent", ds.Name)
	}
	wait := spec.Containers[agent]
	wait.StartupProbe, wait.LivenessProbe, wait.ReadinessProbe, wait.Lifecycle, wait.Ports = nil, nil, nil, nil, nil
	wait.Command = append(slices.Clone(wait.Command), "--cleanup")
	now := wait
	now.Name = "cleanup"
	wait.Command = append(slices.Clone(wait.Command), "--wait")

	var steps []corev1.Container
	for _, c := range spec.InitContainers {
		if i := slices.Index(c.Command, "install"); i > 0 && c.Command[i-1] == "cni" {
			c.Name = "uninstall-cni"
			c.Command = slices.DeleteFunc(slices.Clone(c.Command), func(arg string) bool {
				return strings.HasPrefix(arg, "--") && !strings.HasPrefix(arg, "--cni-")
			})
			c.Command[i] = "uninstall"
			steps = append(steps, c)
		}
	}
	spec.InitContainers = append(steps, now)
	spec.Containers = []corev1.Container{wait}
	metav1.SetMetaDataAnnotation(&ds.ObjectMeta, Cleaning, "true")
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
