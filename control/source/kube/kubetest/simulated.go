package kubetest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"
)

// Simulated is a server that speaks as much of the API as an agent reads: lists,
// watches and watch-lists of the built-in resources, in protobuf. It holds
// clusters that a real server on a test's machine can't, and does what a real
// one does too rarely: it cuts watches, and forgets history.
type Simulated struct {
	tb       testing.TB
	listener net.Listener

	mu       sync.Mutex
	version  uint64
	objects  map[string]map[string]runtime.Object
	watchers map[*simulatedWatch]struct{}
}

type simulatedWatch struct {
	resource string
	events   chan watch.Event
	end      context.CancelFunc
}

// resources by path.
var simulated = map[string]struct {
	gv   schema.GroupVersion
	kind string
}{
	"/api/v1/namespaces": {schema.GroupVersion{Version: "v1"}, "Namespace"},
	"/api/v1/nodes":      {schema.GroupVersion{Version: "v1"}, "Node"},
	"/api/v1/pods":       {schema.GroupVersion{Version: "v1"}, "Pod"},
	"/api/v1/services":   {schema.GroupVersion{Version: "v1"}, "Service"},
	"/apis/discovery.k8s.io/v1/endpointslices":   {schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}, "EndpointSlice"},
	"/apis/networking.k8s.io/v1/networkpolicies": {schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}, "NetworkPolicy"},
}

// Simulate serves on l until the test ends.
func Simulate(tb testing.TB, l net.Listener) *Simulated {
	s := &Simulated{tb: tb, listener: l, version: 1, objects: map[string]map[string]runtime.Object{}, watchers: map[*simulatedWatch]struct{}{}}
	srv := &http.Server{Handler: http.HandlerFunc(s.serve)}
	go srv.Serve(l)
	tb.Cleanup(func() { s.Cut(); srv.Close() })
	return s
}

// Kubeconfig writes a kubeconfig for the server.
func (s *Simulated) Kubeconfig() string {
	return writeKubeconfig(s.tb, "http://"+s.listener.Addr().String())
}

func pathOf(o runtime.Object) string {
	kinds, _, err := scheme.Scheme.ObjectKinds(o)
	if err == nil {
		for path, r := range simulated {
			if r.gv.WithKind(r.kind) == kinds[0] {
				return path
			}
		}
	}
	panic(fmt.Sprintf("kubetest: no place for %T", o))
}

func nameOf(o runtime.Object) (metav1.Object, string) {
	m, err := meta.Accessor(o)
	if err != nil {
		panic(err)
	}
	return m, m.GetNamespace() + "/" + m.GetName()
}

// Set creates or replaces an object, which is the server's from then on.
func (s *Simulated) Set(o runtime.Object) {
	path := pathOf(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	m, name := nameOf(o)
	s.version++
	m.SetResourceVersion(strconv.FormatUint(s.version, 10))
	kind := watch.Added
	if s.objects[path] == nil {
		s.objects[path] = map[string]runtime.Object{}
	}
	if s.objects[path][name] != nil {
		kind = watch.Modified
	}
	s.objects[path][name] = o
	s.tell(path, watch.Event{Type: kind, Object: o})
}

// Delete removes an object, named by one like it.
func (s *Simulated) Delete(o runtime.Object) {
	path := pathOf(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, name := nameOf(o)
	old := s.objects[path][name]
	if old == nil {
		return
	}
	delete(s.objects[path], name)
	s.version++
	gone := old.DeepCopyObject()
	m, _ := nameOf(gone)
	m.SetResourceVersion(strconv.FormatUint(s.version, 10))
	s.tell(path, watch.Event{Type: watch.Deleted, Object: gone})
}

// tell sends an event to those who watch; one that doesn't keep up is cut.
func (s *Simulated) tell(path string, e watch.Event) {
	for w := range s.watchers {
		if w.resource != path {
			continue
		}
		select {
		case w.events <- e:
		default:
			w.end()
			delete(s.watchers, w)
		}
	}
}

// Drain waits until all that happened is on its way to those who watch.
func (s *Simulated) Drain() {
	for ; ; time.Sleep(time.Millisecond) {
		waiting := 0
		s.mu.Lock()
		for w := range s.watchers {
			waiting += len(w.events)
		}
		s.mu.Unlock()
		if waiting == 0 {
			return
		}
	}
}

// Cut ends all watches and forgets history: who comes again has to begin anew.
func (s *Simulated) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	for w := range s.watchers {
		w.end()
		delete(s.watchers, w)
	}
}

func (s *Simulated) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	watching := q.Get("watch") == "true" || q.Get("watch") == "1"
	if strings.HasSuffix(r.URL.Path, "/customresourcedefinitions") || strings.HasSuffix(r.URL.Path, "/serviceaccounts") {
		s.nothing(w, r, watching)
		return
	}
	if _, ok := simulated[r.URL.Path]; !ok {
		s.status(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	if watching {
		s.watch(w, r)
		return
	}
	s.list(w, r)
}

func (s *Simulated) status(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason)})
}

// nothing answers for a resource that there is nothing of, in JSON.
func (s *Simulated) nothing(w http.ResponseWriter, r *http.Request, watching bool) {
	w.Header().Set("Content-Type", "application/json")
	if !watching {
		fmt.Fprint(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)
		return
	}
	fmt.Fprint(w, `{"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// all lists the objects of a resource by name. s.mu is held.
func (s *Simulated) all(path string) []runtime.Object {
	var names []string
	for name := range s.objects[path] {
		names = append(names, name)
	}
	slices.Sort(names)
	out := make([]runtime.Object, len(names))
	for i, name := range names {
		out[i] = s.objects[path][name]
	}
	return out
}

func protobuf() runtime.SerializerInfo {
	for _, info := range scheme.Codecs.SupportedMediaTypes() {
		if info.MediaType == runtime.ContentTypeProtobuf {
			return info
		}
	}
	panic("kubetest: no protobuf")
}

func (s *Simulated) list(w http.ResponseWriter, r *http.Request) {
	res := simulated[r.URL.Path]
	list, err := scheme.Scheme.New(res.gv.WithKind(res.kind + "List"))
	if err == nil {
		s.mu.Lock()
		err = meta.SetList(list, s.all(r.URL.Path))
		m, _ := meta.ListAccessor(list)
		m.SetResourceVersion(strconv.FormatUint(s.version, 10))
		s.mu.Unlock()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	_ = scheme.Codecs.EncoderForVersion(protobuf().Serializer, res.gv).Encode(list, w)
}

// watch streams events until the client goes or the watch is cut.
func (s *Simulated) watch(w http.ResponseWriter, r *http.Request) {
	res := simulated[r.URL.Path]
	q := r.URL.Query()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	me := &simulatedWatch{resource: r.URL.Path, events: make(chan watch.Event, 1<<14), end: cancel}
	since, _ := strconv.ParseUint(q.Get("resourceVersion"), 10, 64)
	initial := q.Get("sendInitialEvents") == "true"
	s.mu.Lock()
	if !initial && since != s.version {
		// A watch goes on only where nothing has happened meanwhile.
		s.mu.Unlock()
		s.status(w, http.StatusGone, metav1.StatusReasonExpired)
		return
	}
	var first []watch.Event
	if initial {
		for _, o := range s.all(r.URL.Path) {
			first = append(first, watch.Event{Type: watch.Added, Object: o})
		}
		mark, _ := scheme.Scheme.New(res.gv.WithKind(res.kind))
		m, _ := nameOf(mark)
		m.SetResourceVersion(strconv.FormatUint(s.version, 10))
		m.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
		first = append(first, watch.Event{Type: watch.Bookmark, Object: mark})
	}
	s.watchers[me] = struct{}{}
	s.mu.Unlock()
	defer func() { s.mu.Lock(); delete(s.watchers, me); s.mu.Unlock() }()

	info := protobuf()
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	frames := info.StreamSerializer.Framer.NewFrameWriter(w)
	wire := restwatch.NewEncoder(streaming.NewEncoder(frames, info.StreamSerializer.Serializer), scheme.Codecs.EncoderForVersion(info.Serializer, res.gv))
	// Encoding writes to the object, which others may be reading.
	send := func(e watch.Event) bool {
		e.Object = e.Object.DeepCopyObject()
		return wire.Encode(&e) == nil
	}
	for _, e := range first {
		if !send(e) {
			return
		}
	}
	first = nil
	for {
		_ = flush.Flush()
		select {
		case <-ctx.Done():
			return
		case e := <-me.events:
			if !send(e) {
				return
			}
			for range len(me.events) {
				if !send(<-me.events) {
					return
				}
			}
		}
	}
}

// RSS returns the resident memory of a process, in bytes: all of it, and what is
// not backed by files.
func RSS(pid int) (all, anonymous uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		var kb uint64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			all = kb << 10
		}
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			anonymous = kb << 10
		}
	}
	return all, anonymous, nil
}
