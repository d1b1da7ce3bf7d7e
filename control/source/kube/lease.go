package kube

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// leaseName is the name of the Lease that the writer of reports holds.
const leaseName = "sluice-agent-reports"

// DefaultLease is how long the writer of reports may be silent.
const DefaultLease = 30 * time.Second

// lease is a Lease of coordination.k8s.io, held only while there is something
// to do. Its times are read off this process's monotonic clock: the clocks of
// other nodes, and jumps of this one's, don't matter. Two holders at once could
// say something twice at worst. One goroutine uses it.
type lease struct {
	client    rest.Interface
	namespace string
	holder    string
	duration  time.Duration

	until    time.Time // held so long
	observed string    // the version of another's lease
	since    time.Time // when that version was seen first
}

func newLease(rc *rest.Config, namespace, holder string, duration time.Duration) *lease {
	c := rest.CopyConfig(rc)
	c.GroupVersion, c.APIPath = &schema.GroupVersion{Group: "coordination.k8s.io", Version: "v1"}, "/apis"
	c.NegotiatedSerializer = codecs.WithoutConversion()
	client, err := rest.RESTClientFor(c)
	if err != nil {
		panic(fmt.Sprintf("kube: client of a configuration that others were made of: %v", err))
	}
	return &lease{client: client, namespace: namespace, holder: holder, duration: duration}
}

// held reports whether it is held, with time left for a write.
func (l *lease) held() bool { return time.Until(l.until) > l.duration/3 }

// acquire takes or renews the lease if nobody else holds it.
func (l *lease) acquire(ctx context.Context) (bool, error) {
	if l.held() {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.duration/3)
	defer cancel()
	began := time.Now()
	var now coordinationv1.Lease
	err := l.client.Get().Namespace(l.namespace).Resource("leases").Name(leaseName).Do(ctx).Into(&now)
	missing := errors.IsNotFound(err)
	if err != nil && !missing {
		return false, fmt.Errorf("read lease: %w", err)
	}
	if !missing && !l.free(&now) {
		return false, nil
	}
	seconds := max(1, int32(l.duration/time.Second))
	at := metav1.NewMicroTime(began)
	if now.Spec.HolderIdentity == nil || *now.Spec.HolderIdentity != l.holder {
		now.Spec.AcquireTime = &at
		transitions := int32(0)
		if now.Spec.LeaseTransitions != nil {
			transitions = *now.Spec.LeaseTransitions + 1
		}
		now.Spec.LeaseTransitions = &transitions
	}
	now.Spec.HolderIdentity, now.Spec.LeaseDurationSeconds, now.Spec.RenewTime = &l.holder, &seconds, &at
	if missing {
		now.Name, now.Namespace = leaseName, l.namespace
		err = l.client.Post().Namespace(l.namespace).Resource("leases").Body(&now).Do(ctx).Error()
	} else {
		err = l.client.Put().Namespace(l.namespace).Resource("leases").Name(leaseName).Body(&now).Do(ctx).Error()
	}
	if errors.IsAlreadyExists(err) || errors.IsConflict(err) {
		return false, nil // another was faster
	}
	if err != nil {
		return false, fmt.Errorf("write lease: %w", err)
	}
	l.until = began.Add(l.duration)
	return true, nil
}

// free reports whether a lease may be taken: it is ours, nobody's, or its
// holder has not renewed it for as long as it promised to.
func (l *lease) free(now *coordinationv1.Lease) bool {
	if now.Spec.HolderIdentity == nil || *now.Spec.HolderIdentity == "" || *now.Spec.HolderIdentity == l.holder {
		return true
	}
	if l.observed != now.ResourceVersion {
		l.observed, l.since = now.ResourceVersion, time.Now()
	}
	promised := l.duration
	if s := now.Spec.LeaseDurationSeconds; s != nil {
		promised = time.Duration(*s) * time.Second
	}
	return time.Since(l.since) > promised
}
