package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/control/policy"
)

// component is who Events and conditions are from.
const component = "sluice-agent"

// ConditionType is the condition that says whether a policy is in force as
// written: True, or False with what is wrong and what holds instead.
const ConditionType = "sluice.dev/Accepted"

// The reasons of Events and conditions.
const (
	reasonAccepted = "Accepted"
	reasonRejected = "Rejected"          // the rules don't hold; what they would have closed is closed
	reasonPartly   = "PartiallyAccepted" // some rules don't hold
)

// conditionGroups are the groups whose policies have status.conditions.
var conditionGroups = map[string]bool{"policy.networking.k8s.io": true}

func (v *verdict) reason() string {
	switch {
	case len(v.rejections) == 0:
		return reasonAccepted
	case v.whole:
		return reasonRejected
	default:
		return reasonPartly
	}
}

// eventName is the same for Events that say the same of the same object.
func (v *verdict) eventName() string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\n%d\n%s\n%s", v.uid, v.generation, v.reason(), v.message())
	const longest = 200
	return fmt.Sprintf("%.*s.%016x", longest, v.name, h.Sum64())
}

// writeEvent says in an Event what of an object doesn't hold. One that is there
// already says it.
func (r *reporter) writeEvent(ctx context.Context, o policy.Origin, v verdict) error {
	now := metav1.Now()
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: v.eventName(), Namespace: o.Namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: v.apiVersion, Kind: v.apiKind, Namespace: o.Namespace, Name: v.name,
			UID: v.uid, ResourceVersion: v.version},
		Reason: v.reason(), Message: v.message(), Type: corev1.EventTypeWarning,
		Source:         corev1.EventSource{Component: component, Host: r.src.cfg.NodeName},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: component, ReportingInstance: r.src.cfg.NodeName,
	}
	if e.Namespace == "" {
		e.Namespace = metav1.NamespaceDefault // where Events on objects without one belong
	}
	err := r.src.built["v1"].Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error()
	if errors.IsAlreadyExists(err) || errors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || errors.IsNotFound(err) {
		return nil
	}
	return err
}

// condition is the condition that an object should have.
func (v *verdict) condition() metav1.Condition {
	c := metav1.Condition{Type: ConditionType, Status: metav1.ConditionTrue, Reason: v.reason(),
		Message: "in force as written", ObservedGeneration: v.generation, LastTransitionTime: metav1.Now()}
	if len(v.rejections) > 0 {
		c.Status, c.Message = metav1.ConditionFalse, v.message()
	}
	if v.current.Status == c.Status && !v.current.LastTransitionTime.IsZero() {
		c.LastTransitionTime = v.current.LastTransitionTime
	}
	return c
}

// wantsCondition reports whether the object's condition is not yet what it
// should be.
func (v *verdict) wantsCondition() bool {
	gv, err := schema.ParseGroupVersion(v.apiVersion)
	if err != nil || !conditionGroups[gv.Group] {
		return false
	}
	c := v.condition()
	return v.current.Status != c.Status || v.current.Reason != c.Reason || v.current.Message != c.Message ||
		v.current.ObservedGeneration != c.ObservedGeneration
}

// writeCondition applies the condition, and nothing else, to the status.
func (r *reporter) writeCondition(ctx context.Context, o policy.Origin, v verdict) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": v.apiVersion, "kind": v.apiKind,
		"metadata": map[string]any{"name": v.name, "uid": v.uid},
		"status":   map[string]any{"conditions": []metav1.Condition{v.condition()}},
	})
	if err != nil {
		return err
	}
	gv, err := schema.ParseGroupVersion(v.apiVersion)
	if err != nil {
		return err
	}
	force := true
	_, err = r.src.dynamic.Resource(gv.WithResource(schema.ParseGroupResource(v.resource).Resource)).Patch(ctx, v.name,
		types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: component, Force: &force}, "status")
	if errors.IsNotFound(err) || errors.IsConflict(err) {
		return nil // it has gone, or is another one by now
	}
	return err
}

// currentCondition finds the condition that an object has.
func currentCondition(u *unstructured.Unstructured) metav1.Condition {
	list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, x := range list {
		m, ok := x.(map[string]any)
		if !ok || m["type"] != ConditionType {
			continue
		}
		text := func(key string) string { s, _ := m[key].(string); return s }
		c := metav1.Condition{Type: ConditionType, Status: metav1.ConditionStatus(text("status")), Reason: text("reason"), Message: text("message")}
		c.ObservedGeneration, _ = m["observedGeneration"].(int64)
		if t, err := time.Parse(time.RFC3339, text("lastTransitionTime")); err == nil {
			c.LastTransitionTime = metav1.NewTime(t)
		}
		return c
	}
	return metav1.Condition{}
}
