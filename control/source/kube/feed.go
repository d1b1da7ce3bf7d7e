package kube

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
)

// pageSize is how many objects a page of a list has, where lists are used.
const pageSize = 500

// feed keeps in the store what one resource of the API server holds. Its
// Reflector's goroutine calls Add, Update, Delete and Replace; its stream's
// calls early.
type feed struct {
	src        *Source
	resource   string // plural, with the group of a custom one
	apiVersion string
	kind       string // Origin.Kind
	convert    func(runtime.Object) object.Object
	lister     func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watcher    func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// prompt, if not nil, picks what the store gets before the list is whole.
	prompt func(*item) bool

	apiKind  string
	optional bool            // the rest doesn't wait for it
	hint     chan<- struct{} // told of each change; or nil

	// Of a custom resource.
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	owned   map[store.Key]owned  // what it wrote
	known   map[store.Key]string // of policies: their versions
	synced  bool
	open    int       // watches
	since   time.Time // when the last watch was lost
	heard   time.Time
	version string
	err     error // of the last attempt; nil once a watch stands
}

// owned is an object that a feed wrote.
type owned struct {
	uid   types.UID
	valid bool // a valid version of it is in force
}

func (s *Source) newFeed(resource, kind string, convert func(runtime.Object) object.Object) *feed {
	f := &feed{src: s, resource: resource, kind: kind, apiKind: kind, convert: convert, owned: map[store.Key]owned{},
		known: map[store.Key]string{}, since: time.Now()}
	if kind == "Pod" {
		f.prompt = func(it *item) bool {
			p, ok := it.object.Value.(*store.Pod)
			return ok && p.NodeName == s.cfg.NodeName
		}
	}
	return f
}

// run follows the resource until ctx ends.
func (f *feed) run(ctx context.Context) {
	backoff := wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 30, Cap: f.src.cfg.Retry}
	// The feed says itself what goes wrong, once.
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(slog.DiscardHandler))
	r := cache.NewReflectorWithOptions(&cache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch},
		nil, f, cache.ReflectorOptions{Name: f.resource, TypeDescription: f.resource, Backoff: &backoff})
	r.WatchListPageSize = pageSize
	r.RunWithContext(ctx)
}

// list reads a page and converts it.
func (f *feed) list(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
	page, err := f.lister(ctx, opts)
	if err != nil {
		f.failed(ctx, err)
		return nil, err
	}
	out := &itemList{}
	if m, err := meta.ListAccessor(page); err == nil {
		out.ResourceVersion, out.Continue, out.RemainingItemCount = m.GetResourceVersion(), m.GetContinue(), m.GetRemainingItemCount()
	}
	err = meta.EachListItem(page, func(o runtime.Object) error {
		out.Items = append(out.Items, f.item(o))
		return nil
	})
	return out, err
}

// item converts an object.
func (f *feed) item(o runtime.Object) *item {
	m, err := meta.Accessor(o)
	if err != nil {
		m = noMeta
	}
	it := &item{Object: noMeta, namespace: m.GetNamespace(), name: m.GetName(), version: m.GetResourceVersion(),
		uid: m.GetUID(), generation: m.GetGeneration(), object: f.convert(o)}
	if u, ok := o.(*unstructured.Unstructured); ok {
		it.condition = currentCondition(u)
	}
	if it.object.Origin.Namespace != "" {
		it.namespace = it.object.Origin.Namespace // interned
	}
	return it
}

// Add implements cache.ReflectorStore.
func (f *feed) Add(o any) error { return f.Update(o) }

// Update implements cache.ReflectorStore.
func (f *feed) Update(o any) error {
	it := o.(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.src.store.Update(func(tx *store.Tx) { f.put(tx, it) })
	f.news()
	return nil
}

// Delete implements cache.ReflectorStore.
func (f *feed) Delete(o any) error {
	it := o.(*item)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.src.store.Update(func(tx *store.Tx) { f.remove(tx, store.Key{Namespace: it.namespace, Name: it.name}) })
	f.news()
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *feed) Replace(list []any, version string) error {
	f.mu.Lock()
	there := make(map[store.Key]bool, len(list))
	for _, o := range list {
		it := o.(*item)
		there[store.Key{Namespace: it.namespace, Name: it.name}] = true
	}
	f.src.store.Update(func(tx *store.Tx) {
		for key := range f.owned {
			if !there[key] {
				f.remove(tx, key)
			}
		}
		for _, o := range list {
			f.put(tx, o.(*item))
		}
	})
	f.version, f.heard, f.synced = version, time.Now(), true
	f.mu.Unlock()
	f.src.noteSynced()
	f.news()
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed) Resync() error { return nil }

// UpdateResourceVersion implements cache.ResourceVersionUpdater: it follows
// what was written, bookmarks included.
func (f *feed) UpdateResourceVersion(version string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version, f.heard = version, time.Now()
}

// news tells that a policy may have changed what State says, even if the store
// holds what it held.
func (f *feed) news() {
	if f.hint != nil {
		select {
		case f.hint <- struct{}{}:
		default:
		}
		return
	}
	switch f.kind {
	case "Pod", "Node", "Service", "EndpointSlice", "ServiceAccount":
	default:
		f.src.changed()
	}
}

// early writes an object that can't wait for the rest.
func (f *feed) early(it *item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.synced {
		f.src.store.Update(func(tx *store.Tx) { f.put(tx, it) })
	}
}

// put writes an object. f.mu is held.
func (f *feed) put(tx *store.Tx, it *item) {
	key := store.Key{Namespace: it.namespace, Name: it.name}
	was, there := f.owned[key]
	if there && was.uid != it.uid { // its end was missed
		f.remove(tx, key)
		was.valid = false
	}
	valid := was.valid
	o := &it.object
	effect := ""
	if !o.Illegible {
		p, isPolicy := o.Value.(*policy.Policy)
		if isPolicy && p.Rejected && valid {
			effect = "; the rules of its last valid version stay in force as well"
		}
		valid = valid || !isPolicy || !p.Rejected
		if isPolicy {
			f.known[key] = it.version
		}
		object.Put(tx, o.Value)
	}
	f.owned[key] = owned{it.uid, valid}
	f.src.judge(f, it, effect)
}

// remove removes an object. f.mu is held.
func (f *feed) remove(tx *store.Tx, key store.Key) {
	o := policy.Origin{Kind: f.kind, Namespace: key.Namespace, Name: key.Name}
	delete(f.owned, key)
	delete(f.known, key)
	object.Remove(tx, o)
	f.src.forget(o)
}

// drop removes all that the feed has written.
func (f *feed) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.src.store.Update(func(tx *store.Tx) {
		for key := range f.owned {
			f.remove(tx, key)
		}
	})
}

func (f *feed) isSynced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced
}

// isForbidden reports whether the server refused the last attempt for want of
// permission.
func (f *feed) isForbidden() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.IsForbidden(f.err)
}

// has reports whether an object without a namespace is there.
func (f *feed) has(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.owned[store.Key{Name: name}]
	return ok
}
