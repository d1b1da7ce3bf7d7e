package publish_test

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/source/kube"
	"github.com/sluice-net/sluice/control/source/kube/kubetest"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// soak is an agent without a dataplane on a cluster that changes without end.
type soak struct {
	*testing.T
	pop       kubetest.Population
	server    *kubetest.Simulated
	store     *store.Store
	publisher *publish.Publisher
	published atomic.Uint64 // generation of the store
	table     atomic.Pointer[classify.Table]
	there     map[int]bool // pods
	inForce   map[int]bool // policies
}

const (
	soakPods, soakPolicies = 1500, 300
	soakNode               = "here"
)

func follow(t *testing.T, ctx context.Context, server *kubetest.Simulated) (*store.Store, *kube.Source, <-chan struct{}) {
	st := store.New()
	src, err := kube.New(kube.Config{Kubeconfig: server.Kubeconfig(), NodeName: soakNode, Retry: 100 * time.Millisecond}, st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = src.Run(ctx, func() {}) }()
	for end := time.Now().Add(time.Minute); !src.State().Synced; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not synced: %v", src.State().Notes)
		}
	}
	return st, src, done
}

func (s *soak) input(v store.View) compile.Input {
	in := compile.Input{View: v, Node: soakNode}
	for p := range v.Pods() {
		if p.NodeName == soakNode {
			in.Endpoints = append(in.Endpoints, endpoint.Endpoint{Namespace: p.Namespace, Name: p.Name, UID: p.UID})
		}
	}
	slices.SortFunc(in.Endpoints, func(a, b endpoint.Endpoint) int { return compareNames(a, b) })
	for i := range in.Endpoints {
		in.Endpoints[i].ID = endpoint.ID(i + 1)
	}
	return in
}

func compareNames(a, b endpoint.Endpoint) int {
	if a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name {
		return -1
	}
	return 1
}

// loop publishes what has changed, as the agent does.
func (s *soak) loop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.store.Changed():
		}
		s.store.Read(func(v store.View) {
			t, err := s.publisher.Next(s.input(v))
			if err != nil {
				s.Error(err)
				return
			}
			s.table.Store(t)
			s.published.Store(v.Generation())
		})
	}
}

// change makes one change of the cluster.
func (s *soak) change(r *rand.Rand, n int) {
	pod, pol := r.IntN(soakPods), r.IntN(soakPolicies)
	switch k := r.IntN(100); {
	case k < 45:
		s.server.Set(s.pop.Pod(pod, n))
		s.there[pod] = true
	case k < 60 && s.there[pod]:
		s.server.Delete(s.pop.Pod(pod, 0))
		s.there[pod] = false
	case k < 75:
		s.server.Set(s.pop.Pod(pod, 0))
		s.there[pod] = true
	case k < 85:
		s.server.Set(s.pop.Policy(pol, n))
		s.inForce[pol] = true
	case k < 90 && s.inForce[pol]:
		s.server.Delete(s.pop.Policy(pol, 0))
		s.inForce[pol] = false
	case k < 97:
		s.server.Set(s.pop.EndpointSlice(n%20, n))
	default:
		s.server.Set(s.pop.Namespace(n, n))
	}
}

// settled waits until all changes are published.
func (s *soak) settled() {
	s.Helper()
	mark := s.pop.Namespace(0, 0)
	mark.Name, mark.Labels = "mark", map[string]string{"at": strconv.FormatInt(time.Now().UnixNano(), 10)}
	pods := s.pop.Pod(0, 0)
	pods.Namespace, pods.Name, pods.Spec.NodeName, pods.Labels = "mark", "mark", "none", mark.Labels
	np := s.pop.Policy(0, 0)
	np.Namespace, np.Name, np.Spec.PodSelector.MatchLabels = "mark", "mark", mark.Labels
	s.server.Set(mark)
	s.server.Set(pods)
	s.server.Set(np)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		var generation uint64
		known := false
		s.store.Read(func(v store.View) {
			generation = v.Generation()
			p := v.Pod(store.Key{Namespace: "mark", Name: "mark"})
			known = v.NamespaceLabels("mark")["at"] == mark.Labels["at"] && p != nil && p.Labels["at"] == mark.Labels["at"]
			for q := range v.Policies("mark") {
				known = known && q.Subject[0].Matches(&policy.Entity{Namespace: "mark", Labels: mark.Labels})
			}
		})
		if known && s.published.Load() == generation {
			return
		}
		if time.Now().After(end) {
			s.Fatal("changes are not published within two minutes")
		}
	}
}

// compare compares verdicts and reasons with those of an agent that starts now.
func (s *soak) compare(r *rand.Rand) {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	fresh, _, done := follow(s.T, ctx, s.server)
	defer func() { cancel(); <-done }()
	var want *classify.Table
	var endpoints []endpoint.Endpoint
	fresh.Read(func(v store.View) {
		in := s.input(v)
		endpoints = in.Endpoints
		t, err := publish.New(compile.Config{}).Next(in)
		if err != nil {
			s.Fatal(err)
		}
		want = t
	})
	got := s.table.Load()
	var addrs []netip.Addr
	for i := range soakPods {
		a := s.pop.Addrs(i)
		addrs = append(addrs, a[:]...)
	}
	for i := range 64 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{172, 16, byte(i * 4), 9}), netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	wrong := 0
	for range 20000 {
		e, a := &endpoints[r.IntN(len(endpoints))], addrs[r.IntN(len(addrs))]
		port, dir := []uint16{8080, 5432, 80}[r.IntN(3)], rule.Direction(r.IntN(2))
		say := func(t *classify.Table) (bool, rule.Cause) {
			var v [1]classify.Verdict
			t.Classify([]classify.Query{{Row: t.Row(e.ID, dir), Remote: packet.AddrFrom(a), Proto: packet.ProtoTCP, Port: port}}, v[:])
			return v[0].Allowed(), t.Causes()[t.Cause(v[0])]
		}
		ok, why := say(got)
		wantOK, wantWhy := say(want)
		if ok != wantOK || !reflect.DeepEqual(why, wantWhy) {
			if wrong++; wrong < 5 {
				s.Errorf("%s %v %v:%d: %v because of %+v, want %v because of %+v", e, dir, a, port, ok, why, wantOK, wantWhy)
			}
		}
	}
	if wrong > 0 {
		s.Fatalf("%d of 20000 verdicts differ from a full recompute", wrong)
	}
}

// TestSoak follows a cluster through many changes: after each stage it says what
// a fresh agent says, with as many goroutines and as much memory as before.
// SLUICE_SOAK is the number of changes: 24 hours at 100 a second are 8640000.
func TestSoak(t *testing.T) {
	changes := 6000
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SOAK")); err == nil {
		changes = n
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &soak{T: t, pop: kubetest.Population{Namespaces: 30, Apps: 5, PodsPerNode: 100, Node: soakNode, Local: 20},
		server: kubetest.Simulate(t, l), publisher: publish.New(compile.Config{}), there: map[int]bool{}, inForce: map[int]bool{}}
	for i := range s.pop.Namespaces {
		s.server.Set(s.pop.Namespace(i, 0))
	}
	for i := range soakPods {
		s.server.Set(s.pop.Pod(i, 0))
		s.there[i] = true
	}
	for i := range soakPolicies {
		s.server.Set(s.pop.Policy(i, 0))
		s.inForce[i] = true
	}
	for i := range 20 {
		s.server.Set(s.pop.Service(i))
		s.server.Set(s.pop.EndpointSlice(i, 0))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done <-chan struct{}
	s.store, _, done = follow(t, ctx, s.server)
	ended := make(chan struct{})
	go func() { defer close(ended); s.loop(ctx) }()
	defer func() { cancel(); <-done; <-ended }()

	r := rand.New(rand.NewPCG(4, 2))
	s.settled()
	s.compare(r)
	const stages, cuts = 8, 25 // cuts a stage
	var heaps []uint64
	var routines []int
	began, at := time.Now(), 0
	for stage := range stages {
		for at < changes*(stage+1)/stages {
			s.change(r, at)
			at++
			if at%500 == 0 {
				s.server.Drain()
			}
			if at%max(changes/stages/cuts, 1) == 0 {
				s.server.Cut()
			}
		}
		s.settled()
		s.compare(r)
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		heaps, routines = append(heaps, m.HeapAlloc), append(routines, runtime.NumGoroutine())
		t.Logf("%d changes in %.1f s: heap %.1f MB, %d goroutines, table %.1f MB, generation %d", at, time.Since(began).Seconds(),
			float64(m.HeapAlloc)/1e6, routines[stage], float64(s.table.Load().Bytes())/1e6, s.table.Load().Generation())
	}
	// The first stages fill what is bounded: journals, pools, rings.
	early, last := slices.Max(heaps[:stages/2]), heaps[stages-1]
	if last > early*5/4+8<<20 {
		t.Errorf("heap grew from %d to %d bytes", early, last)
	}
	if r := routines[stages-1]; r > slices.Max(routines[:stages/2])+10 {
		t.Errorf("goroutines grew to %d: %v", r, routines)
	}
}
