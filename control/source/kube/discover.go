package kube

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
)

// lookAgain is how often the server's resources are looked at when nothing
// suggests it: for those of aggregated servers, which no definition announces.
const lookAgain = 5 * time.Minute

// soon is for how long after such a hint the server's resources are looked at
// again and again if they don't fit the definitions.
const soon = 30 * time.Second

// definitions is the resource whose objects announce custom resources.
var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// definitionsFeed follows the names of the CustomResourceDefinitions; nothing
// of them goes into the store.
func (s *Source) definitionsFeed() *feed {
	client := s.meta.Resource(definitions)
	f := s.newFeed(definitions.Resource+"."+definitions.Group, "CustomResourceDefinition", func(runtime.Object) object.Object { return object.Object{} })
	f.apiVersion, f.optional, f.hint = definitions.GroupVersion().String(), true, s.poke
	f.lister = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return client.List(ctx, opts)
	}
	f.watcher = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		return client.Watch(ctx, opts)
	}
	return f
}

// discover has each kind of policy that the cluster serves followed. It looks
// when a CustomResourceDefinition changes, and now and then.
func (s *Source) discover(ctx context.Context) {
	defs := s.definitionsFeed()
	s.addFeed(defs)
	var wg sync.WaitGroup
	wg.Go(func() { defs.run(ctx) })
	defer func() {
		wg.Wait()
		for _, f := range s.customFeeds() {
			<-f.done
		}
	}()
	const shortest = 50 * time.Millisecond
	hinted, wait := time.Now(), shortest
	for ctx.Err() == nil {
		again := lookAgain + rand.N(lookAgain/10)
		settled, reached := s.look(ctx, defs)
		if !reached || !settled && time.Since(hinted) < soon {
			again, wait = wait, min(2*wait, s.cfg.Retry)
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
		case <-s.poke:
			hinted, wait = time.Now(), shortest
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look compares what the server serves with what is followed. It reports
// whether that fits the definitions, and whether the server answered all that
// it takes to tell.
func (s *Source) look(ctx context.Context, defs *feed) (settled, reached bool) {
	settled, reached = true, true
	wanted := object.Custom()
	served := map[string]map[string]string{}
	for _, apiVersion := range slices.Sorted(maps.Keys(wanted)) {
		resources, err := s.resources(ctx, apiVersion)
		if err != nil {
			reached = false
			if ctx.Err() == nil {
				s.note(apiVersion, "look for its resources: "+err.Error())
			}
			continue
		}
		s.note(apiVersion, "")
		served[apiVersion] = resources
	}
	for _, apiVersion := range slices.Sorted(maps.Keys(served)) {
		resources := served[apiVersion]
		for _, kind := range wanted[apiVersion] {
			other, decided := s.elsewhere(defs, served, apiVersion, kind)
			reached = reached && decided
			if other || !decided {
				continue
			}
			settled = s.settle(ctx, defs, apiVersion, kind, resources[kind]) && settled
		}
	}
	if reached {
		s.mu.Lock()
		first := !s.discovered
		s.discovered = true
		s.mu.Unlock()
		if first {
			s.noteSynced()
		}
	}
	return settled, reached
}

// elsewhere reports whether the objects of a kind are followed, or should be,
// under another apiVersion: where they are followed already, else the last that
// a definition of its own serves, else the first that is served. That is not
// decided where several serve them and the definitions aren't known yet.
func (s *Source) elsewhere(defs *feed, served map[string]map[string]string, apiVersion, kind string) (other, decided bool) {
	chosen, serving := "", 0
	for _, v := range object.Elsewhere(apiVersion) {
		if s.followed(v, kind) != nil {
			return v != apiVersion, true
		}
		plural, group := served[v][kind], strings.Split(v, "/")[0]
		if plural == "" {
			continue
		}
		serving++
		if chosen == "" || defs.has(plural+"."+group) {
			chosen = v
		}
	}
	return chosen != "" && chosen != apiVersion, serving < 2 || defs.isSynced() || defs.isForbidden()
}

// accountsFeed follows the labels of the service accounts.
func (s *Source) accountsFeed() *feed {
	gvr := schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	client := s.meta.Resource(gvr)
	f := s.newFeed(gvr.Resource, "ServiceAccount", func(o runtime.Object) object.Object {
		m, ok := o.(*metav1.PartialObjectMetadata)
		if !ok {
			return object.Object{}
		}
		m.Namespace, m.Labels = s.intern.str(m.Namespace), s.intern.labels(m.Labels)
		v, r := object.Account(m)
		return object.Object{Origin: policy.Origin{Kind: "ServiceAccount", Namespace: m.Namespace, Name: m.Name}, Value: v, Rejections: r}
	})
	f.apiVersion = "v1"
	f.lister = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return client.List(ctx, opts)
	}
	f.watcher = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		return client.Watch(ctx, opts)
	}
	return f
}

// settle starts or stops to follow one kind; plural is empty if the server
// doesn't have it.
func (s *Source) settle(ctx context.Context, defs *feed, apiVersion, kind, plural string) bool {
	k, _ := object.Lookup(apiVersion, kind)
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return true
	}
	f := s.followed(apiVersion, kind)
	topic := kind + "." + gv.Group
	s.note(topic, "")
	switch {
	case plural != "" && f == nil:
		s.follow(ctx, gv.WithResource(plural), kind, k)
		return false // it may just have gone: the server's list lags behind
	case plural != "":
		return defs.has(f.resource)
	case plural == "" && f != nil:
		// Its objects have gone only if their definition has: a server that
		// starts, or a version that is switched off, is no such thing.
		if !defs.isSynced() || defs.has(f.resource) {
			s.note(topic, "not served at the moment; what was last known of it stays in force")
			return false
		}
		s.unfollow(f)
	case plural == "":
		guess, _ := meta.UnsafeGuessKindToResource(gv.WithKind(kind))
		return !defs.has(guess.GroupResource().String())
	}
	return true
}

// resources lists the resources of a group and version that can be watched:
// plural by kind; nothing if the server has no such group.
func (s *Source) resources(ctx context.Context, apiVersion string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var list metav1.APIResourceList
	err := s.built["v1"].Get().AbsPath("/apis/"+apiVersion).SetHeader("Accept", runtime.ContentTypeJSON).Do(ctx).Into(&list)
	if errors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, r := range list.APIResources {
		if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "watch") {
			out[r.Kind] = r.Name
		}
	}
	return out, nil
}

func (s *Source) followed(apiVersion, kind string) *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.feeds {
		if f.apiVersion == apiVersion && f.done != nil && f.apiKind == kind {
			return f
		}
	}
	return nil
}

func (s *Source) customFeeds() []*feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*feed
	for _, f := range s.feeds {
		if f.done != nil {
			out = append(out, f)
		}
	}
	return out
}

// follow starts the feed of a custom resource.
func (s *Source) follow(ctx context.Context, gvr schema.GroupVersionResource, kind string, k object.Kind) {
	client := s.dynamic.Resource(gvr)
	f := s.newFeed(gvr.Resource+"."+gvr.Group, k.Name, func(o runtime.Object) object.Object { return decode(k, o) })
	f.apiVersion, f.apiKind = gvr.GroupVersion().String(), kind
	f.lister = func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return client.List(ctx, opts)
	}
	f.watcher = func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
		return client.Watch(ctx, opts)
	}
	ctx, f.cancel = context.WithCancel(ctx)
	f.done = make(chan struct{})
	s.addFeed(f)
	s.log.Info("resource found", "resource", f.resource)
	go func() {
		defer close(f.done)
		f.run(ctx)
	}()
}

// unfollow ends the feed of a custom resource that the cluster no longer has,
// and removes its objects.
func (s *Source) unfollow(f *feed) {
	f.cancel()
	<-f.done
	f.drop()
	s.mu.Lock()
	delete(s.feeds, f.resource)
	s.mu.Unlock()
	s.log.Info("resource has gone", "resource", f.resource)
	s.noteSynced()
}

// decode converts an object of a custom resource.
func decode(k object.Kind, o runtime.Object) object.Object {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return object.Object{}
	}
	origin := policy.Origin{Kind: k.Name, Namespace: u.GetNamespace(), Name: u.GetName()}
	unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
	doc, err := u.MarshalJSON()
	if err == nil {
		var out object.Object
		if out, err = k.Decode(doc); err == nil {
			return out
		}
	}
	return object.Object{Origin: origin, Illegible: true, Rejections: []policy.Rejection{{
		Object: origin.String(), Reason: fmt.Sprintf("read object: %v", err),
		Effect: "its last valid version stays, if there is one"}}}
}
