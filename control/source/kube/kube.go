// Package kube follows a cluster's API server and keeps the store in step with
// it: pods, namespaces, nodes and NetworkPolicies always, and each further
// kind of policy from the moment that the cluster serves it. It is, with its
// tests, the sole user of client-go.
//
// Each resource is one feed: a client-go Reflector (watch-list, or a paged list
// where the server has none, then a watch) that writes straight into the
// store. There is no second copy of the cluster: objects are converted as they
// are decoded, and what policy doesn't need is dropped there. A feed costs two
// goroutines and its keys; an event costs one store transaction. A list
// replaces all that its feed has written in one transaction, so that what
// changed while the server was away, deletions too, is seen at once or not at
// all.
//
// While the server is away everything stays as it was last known; State tells
// since when. Nothing is ever removed because it could not be read.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// Config says which cluster to follow, and how.
type Config struct {
	// Kubeconfig is a file, or InCluster.
	Kubeconfig string
	// NodeName is this node's: its pods are known before the rest is.
	NodeName string
	// Report writes Events on rejected policies and conditions into the status
	// of those that have one. Of all agents that would, one does.
	Report bool
	// ReportNamespace holds the Lease by which the writer is found.
	ReportNamespace string
	// LeaseDuration is how long the writer may be silent before another one
	// takes its place.
	LeaseDuration time.Duration
	// Retry bounds the time between attempts while the server is away.
	Retry time.Duration
}

// DefaultRetry is the Retry of a Config that says nothing else.
const DefaultRetry = 5 * time.Second

// Source keeps a store in step with a cluster.
type Source struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	rest    *rest.Config
	dynamic dynamic.Interface
	meta    metadata.Interface
	built   map[string]rest.Interface // by apiVersion
	intern  interner
	changed func() // set by Run before anything else starts
	poke    chan struct{}

	mu         sync.Mutex
	feeds      map[string]*feed // by resource
	discovered bool             // a look at the server's resources succeeded
	synced     bool             // all feeds had synced once
	notes      map[string]string
	rejected   map[policy.Origin]verdict
	rejections []policy.Rejection // of rejected, sorted; nil: to be made
	reporter   *reporter
}

// New prepares to follow a cluster; it doesn't talk to it yet.
func New(cfg Config, st *store.Store, log *slog.Logger) (*Source, error) {
	if cfg.Retry == 0 {
		cfg.Retry = DefaultRetry
	}
	if cfg.LeaseDuration == 0 {
		cfg.LeaseDuration = DefaultLease
	}
	if cfg.Report && (cfg.NodeName == "" || cfg.ReportNamespace == "") {
		return nil, errors.New("report on policies: neither the name of the node nor the namespace of the lease may be empty")
	}
	rc, err := restConfig(cfg.Kubeconfig)
	if err != nil {
		return nil, err
	}
	s := &Source{
		cfg: cfg, log: log, store: st, rest: rc, poke: make(chan struct{}, 1), changed: func() {},
		feeds: map[string]*feed{}, notes: map[string]string{}, rejected: map[policy.Origin]verdict{},
	}
	if s.built, err = builtinClients(rc); err != nil {
		return nil, err
	}
	if s.dynamic, err = dynamic.NewForConfig(rc); err != nil {
		return nil, fmt.Errorf("make client for custom resources: %w", err)
	}
	if s.meta, err = metadata.NewForConfig(rc); err != nil {
		return nil, fmt.Errorf("make client for metadata: %w", err)
	}
	if cfg.Report {
		s.reporter = newReporter(s)
	}
	return s, nil
}

// Run follows the cluster until ctx ends. It calls changed when there is
// something to look at: in the store, or in State.
func (s *Source) Run(ctx context.Context, changed func()) error {
	s.changed = changed
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for _, r := range builtins {
		f := s.builtinFeed(r)
		s.addFeed(f)
		wg.Go(func() { f.run(ctx) })
	}
	accounts := s.accountsFeed()
	s.addFeed(accounts)
	wg.Go(func() { accounts.run(ctx) })
	wg.Go(func() { s.discover(ctx) })
	if s.reporter != nil {
		wg.Go(func() { s.reporter.run(ctx) })
	}
	<-ctx.Done()
	wg.Wait()
	return ctx.Err()
}

func (s *Source) addFeed(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeds[f.resource] = f
}

// allFeeds lists the feeds by resource. A feed is asked without s.mu: its own
// lock comes first.
func (s *Source) allFeeds() []*feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Collect(maps.Values(s.feeds))
	slices.SortFunc(out, func(a, b *feed) int { return strings.Compare(a.resource, b.resource) })
	return out
}

// noteSynced latches that everything has been known once.
func (s *Source) noteSynced() {
	s.mu.Lock()
	all := s.discovered // before the feeds are listed: from then on they are all there
	s.mu.Unlock()
	for _, f := range s.allFeeds() {
		all = all && (f.optional || f.isSynced())
	}
	s.mu.Lock()
	done := all && !s.synced
	s.synced = s.synced || done
	s.mu.Unlock()
	if done {
		s.log.Info("cluster known")
	}
	s.changed()
}
