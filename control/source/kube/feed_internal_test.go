package kube

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
)

// newSource is a source without a server: feeds are written by the test.
func newSource() *Source {
	return &Source{store: store.New(), log: slog.New(slog.DiscardHandler), changed: func() {},
		feeds: map[string]*feed{}, notes: map[string]string{}, rejected: map[policy.Origin]verdict{}}
}

// While one feed is asked whether it has synced, which may take long, others are
// found that have not: the cluster isn't known.
func TestFoundWhileAsked(t *testing.T) {
	s := newSource()
	pods, custom := s.newFeed("pods", "Pod", nil), s.newFeed("customs", "Custom", nil)
	pods.synced = true
	s.addFeed(pods)
	pods.mu.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.noteSynced()
	}()
	time.Sleep(20 * time.Millisecond) // until it waits for the lock, most probably
	s.addFeed(custom)
	s.mu.Lock()
	s.discovered = true
	s.mu.Unlock()
	pods.mu.Unlock()
	<-done
	if s.State().Synced {
		t.Error("synced, and what was found meanwhile is not")
	}
	if s.noteSynced(); s.State().Synced {
		t.Error("synced, and one feed is not")
	}
	custom.synced = true
	if s.noteSynced(); !s.State().Synced {
		t.Error("all feeds have synced, and the cluster is not known")
	}
}

// A policy that is not valid leaves the rules of its last valid version, and nothing
// of an earlier policy that had its name: its end may not have been heard of.
func TestSuccessor(t *testing.T) {
	origin := policy.Origin{Kind: "NetworkPolicy", Namespace: "a", Name: "p"}
	version := func(uid types.UID, valid bool) *item {
		return &item{namespace: "a", name: "p", uid: uid, object: object.Object{Origin: origin, Value: &policy.Policy{Origin: origin, Rejected: !valid}}}
	}
	illegible := version("2", false)
	illegible.object = object.Object{Origin: origin, Illegible: true}
	for _, tt := range []struct {
		name         string
		next         *item
		valid, total int
	}{
		{"another version", version("1", true), 1, 1},
		{"a version that is not valid", version("1", false), 1, 2},
		{"a successor", version("2", true), 1, 1},
		{"a successor that is not valid", version("2", false), 0, 1},
		{"a successor that is illegible", illegible, 0, 0},
	} {
		for how, write := range map[string]func(*feed, *item) error{
			"list":  func(f *feed, it *item) error { return f.Replace([]any{it}, "2") },
			"watch": func(f *feed, it *item) error { return f.Update(it) },
		} {
			t.Run(tt.name+", by a "+how, func(t *testing.T) {
				s := newSource()
				f := s.newFeed("networkpolicies", "NetworkPolicy", nil)
				if err := errors.Join(f.Replace([]any{version("1", true)}, "1"), write(f, tt.next)); err != nil {
					t.Fatal(err)
				}
				valid, total := 0, 0
				s.store.Read(func(v store.View) {
					for p := range v.Policies("a") {
						if total++; !p.Rejected {
							valid++
						}
					}
				})
				if valid != tt.valid || total != tt.total {
					t.Errorf("%d policies, %d of them valid; want %d and %d", total, valid, tt.total, tt.valid)
				}
			})
		}
	}
}

// What can't wait for a list is written at once, but not what comes after the list.
func TestEarly(t *testing.T) {
	s := newSource()
	s.cfg.NodeName = "here"
	f := s.newFeed("pods", "Pod", func(o runtime.Object) object.Object {
		m := o.(*corev1.Pod)
		return object.Object{Origin: policy.Origin{Kind: "Pod", Namespace: "a", Name: m.Name}, Value: &store.Pod{Namespace: "a", Name: m.Name, NodeName: "here"}}
	})
	in := watch.NewFakeWithChanSize(3, false)
	f.watcher = func(context.Context, metav1.ListOptions) (watch.Interface, error) { return in, nil }
	end := &corev1.Pod{}
	end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	in.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "first"}})
	in.Action(watch.Bookmark, end)
	in.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "late"}})
	out, err := f.watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-out.ResultChan()
	}
	out.Stop()
	s.store.Read(func(v store.View) {
		for name, want := range map[string]bool{"first": true, "late": false} {
			if has := v.Pod(store.Key{Namespace: "a", Name: name}) != nil; has != want {
				t.Errorf("%s is known: %v, want %v", name, has, want)
			}
		}
	})
}

// Who may annotate a pod gives it no address of others: it could send with it, and
// what policies say of the pod would hold for that address.
func TestClaimedAddress(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", Annotations: map[string]string{object.AddressAnnotation: "192.0.2.7"}}}
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}}
	o := convertPod(newSource(), p)
	if got := o.Value.(*store.Pod).Addrs(); len(got) != 1 || got[0].String() != "10.0.0.1" {
		t.Errorf("addresses %v", got)
	}
	if len(o.Rejections) != 1 || o.Rejections[0].Object != "Pod a/p" {
		t.Errorf("rejections %v", o.Rejections)
	}
	if p.Annotations[object.AddressAnnotation] == "" {
		t.Error("the object itself was changed")
	}
}
