// Package control runs the agent of a node: it follows a source of pods and
// policies, finds the pods' links, compiles what concerns them and publishes
// it to the dataplane. One goroutine, the loop, does all of that; a burst of
// changes becomes one publish, a single change is published at once.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/compile"
	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/metrics"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/publish"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/control/web"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/xdpprog"
)

// Source keeps the store in step with where objects come from.
type Source interface {
	// Run follows the source until ctx ends; it calls changed after each load.
	Run(ctx context.Context, changed func()) error
	// State describes what was loaded last.
	State() SourceState
}

// Tracer is a Source that knows where an object came from.
type Tracer interface {
	// Whence names where an object that the store holds was read, and its
	// version, if versions of it can be compared; nothing if it isn't known.
	Whence(policy.Origin) (source, version string)
}

// SourceState is what a source has to say about itself.
type SourceState struct {
	Name string // of the source, for people
	// Synced: the store holds all that there is. Before, pods are isolated and
	// no policy is put into force: half a picture could open what the other
	// half closes.
	Synced     bool
	Digest     string       // names the version of the content
	Watches    []WatchState // of a source that follows a server
	Rejections []policy.Rejection
	Notes      []string
}

// WatchState is the state of one resource that a source follows.
type WatchState struct {
	Resource string
	Synced   bool      // it was known in full once
	Healthy  bool      // it is being followed now
	Current  time.Time // when the store was last known to be in step with it
	Heard    time.Time // when the server last said something of it
	Version  string
	Objects  int
	Err      string // why it is not healthy
}

// Agent is the agent of one node.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	store  *store.Store
	source Source
	plane  *dataplane.Plane

	publisher *publish.Publisher
	finder    link.Finder
	names     atomic.Pointer[names]
	ends      *ends // the observer's
	labels    atomic.Pointer[nodeLabels]
	observer  *observe.Observer
	metrics   *metrics.Metrics
	turning   atomic.Int64 // since when the loop is at work, in ns from started by the monotonic clock; 0: it rests
	sandboxes *sandboxes
	lookups   lookups
	recall    *recall // the loop's
	started   time.Time
	kick      chan struct{} // something may have changed
	kicked    atomic.Bool   // links may have, since the loop last looked
	links     link.Table
	// Explainer, if not nil, answers how rules come to a verdict. It is set
	// before Run.
	Explainer func(api.Question) (json.RawMessage, error)

	// The loop's.
	attached  map[store.Key]endpoint.Endpoint
	cut       map[int]string           // links of pods that have gone, by index: their names
	published *classify.Table          // in force
	relook    bool                     // links may have changed, or sources ask for a look
	postponed bool                     // the search for links that nobody told of
	looked    uint64                   // generation of the store that wanted is of
	wanted    map[store.Key]*store.Pod // pods that may have a link here; nil before the first look
	missing   []string                 // pods of this node that were not attached then
	unguarded []store.Key              // of attached: bound, and to be guarded after the next publish
	// Endpoints changed since the last publish.
	unpublished bool
	pruned      bool // links that an earlier agent served and no pod claims
	lastInput   input
	services    serviceLoop

	mu     sync.Mutex // guards status
	status loopStatus
}

// loopStatus is what the loop last did.
type loopStatus struct {
	generation uint64    // of the published rules
	published  time.Time // when they were
	store      uint64    // generation of the store that is in force
	digest     string
	pending    []string
	ready      bool
	err        error
	failures   uint64
	services   api.Services
}

// New loads the dataplane and adopts what an earlier agent left.
func New(cfg Config, st *store.Store, source Source, log *slog.Logger) (*Agent, error) {
	plane, err := dataplane.New(cfg.dataplane(), link.Filters{}, log)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: log, store: st, source: source, plane: plane,
		publisher: publish.New(compile.Config{}), finder: link.Finder{NetNS: cfg.NetNS},
		sandboxes: newSandboxes(sandboxDir(cfg)),
		relook:    true, started: time.Now(), kick: make(chan struct{}, 1),
		attached: make(map[store.Key]endpoint.Endpoint), cut: make(map[int]string),
	}
	a.names.Store(&names{})
	a.newLookups()
	if a.recall, err = newRecall(linksFile(cfg)); err != nil {
		log.Warn("links are searched for", "err", err)
	}
	a.adoptGuard()
	a.ends = newEnds(st, cfg.NodeName)
	a.observer = observe.New(plane, a, cfg.History, cfg.Events.interest())
	a.metrics = metrics.New(cfg.Metrics, plane, instruments{a}, a.observer)
	return a, nil
}

// Run enforces until ctx ends, then leaves the node as Config.OnExit says.
func (a *Agent) Run(ctx context.Context) error {
	lean()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	run := func(what string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	// An earlier agent may have had more workers.
	if err := link.RemovePorts(a.cfg.Workers); err != nil {
		return errors.Join(err, a.plane.Close())
	}
	if err := a.links.Follow(ctx, a.Kick); err != nil {
		return errors.Join(err, a.plane.Close())
	}
	a.recallSandboxes()
	run("dataplane", func(ctx context.Context) error { return a.plane.Run(ctx, link.Ports{}) })
	run("source", func(ctx context.Context) error { return a.source.Run(ctx, a.poke) })
	run("api", func(ctx context.Context) error { return api.Serve(ctx, a.cfg.Socket, a) })
	if cfg := a.cfg.hubble(); cfg.Socket != "" || cfg.Listen != "" {
		run("hubble", func(ctx context.Context) error { a.serveHubble(ctx, hubble.New(cfg, a.observer, a)); return nil })
	}
	if cfg := a.cfg.Metrics; cfg.Listen != "" {
		run("metrics", func(ctx context.Context) error {
			return a.persist(ctx, "metrics", func(ctx context.Context) error { return a.metrics.Serve(ctx, cfg.Listen) })
		})
	}
	if a.cfg.Web.Listen != "" {
		page := web.New(a.cfg.Web, a.observer, a.webState)
		run("web", func(ctx context.Context) error { return a.persist(ctx, "web page", page.Serve) })
	}
	run("observer", func(ctx context.Context) error { a.observer.Run(ctx); return nil })
	run("names", a.listen)
	run("loop", a.loop)
	run("guard", a.watchGuard)
	run("drops", a.tellDrops)
	a.log.Info("agent started", "node", a.cfg.NodeName, "offload", a.cfg.Offload,
		"failOpen", a.cfg.FailOpen, "adopted", a.plane.Adopted())
	<-ctx.Done()
	wg.Wait()
	err := a.plane.Close()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	if a.cfg.OnExit == ExitCleanup {
		err = errors.Join(err, Cleanup(a.cfg))
	}
	a.log.Info("agent ended", "onExit", a.cfg.OnExit, "err", err)
	return err
}

// Cleanup removes every trace of an agent from the node: programs, maps,
// filters, tables and steering ports. Nothing is enforced afterwards.
func Cleanup(cfg Config) error {
	return errors.Join(link.RemoveFilters(), xdpprog.Remove(cfg.PinPath), forward.Remove(), link.RemovePorts(0),
		os.RemoveAll(sandboxDir(cfg)), os.RemoveAll(namesFile(cfg)), os.RemoveAll(linksFile(cfg)))
}

// Kick has the loop look whether links, or what is known of them, have changed.
func (a *Agent) Kick() {
	a.kicked.Store(true)
	a.poke()
}

// poke has the loop look whether anything else has changed.
func (a *Agent) poke() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// maxRest bounds how long the loop rests between two turns.
const maxRest = 50 * time.Millisecond

// retryAfter is how soon the loop looks again for links that it didn't find.
const retryAfter = 200 * time.Millisecond

func (a *Agent) loop(ctx context.Context) error {
	retry, armed := time.NewTimer(retryAfter), false
	retry.Stop()
	defer retry.Stop()
	for {
		began := time.Now()
		pending, err := a.turn()
		if err != nil {
			a.log.Error("apply changes", "err", err)
		}
		a.sweepSandboxes()
		took := time.Since(began)
		switch again := pending || err != nil; {
		case again && !armed: // else changes without end would put it off for ever
			retry.Reset(retryAfter)
			armed = true
		case !again:
			retry.Stop()
			armed = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.kick:
			a.relook = a.kicked.Swap(false) || a.relook
		case <-a.store.Changed():
		case <-a.lookups.learner.Changed():
		case <-retry.C:
			a.relook, armed = true, false
		}
		a.rest(ctx, began, took)
	}
}

// rest makes one publish of a burst of changes: a turn begins no sooner after
// the last one ended than that one took. So a single change is published at
// once, and changes that come without end take half of a core at most.
func (a *Agent) rest(ctx context.Context, began time.Time, took time.Duration) {
	wait := time.Until(began.Add(took + min(took, maxRest)))
	if wait <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}
