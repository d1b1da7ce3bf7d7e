// Package metrics exports what the agent knows of itself in the formats of
// Prometheus and OpenMetrics.
//
// Everything is read when it is asked for, by the goroutine of the request: the
// workers' counters by atomic loads of what they publish once a burst anyway,
// the programs' by look-ups. No worker waits for a reader, or knows of one. To
// count the entries of the kernel's maps is the dearest part and done at most
// once in mapsEvery.
//
// Series are bounded: by the numbers of workers, reasons, maps and watched
// resources, and for policies by Config.Policies. Nothing is labelled with a
// pod or an address.
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

// Plane is the dataplane, as far as it is measured (dataplane.Plane).
type Plane interface {
	Stats() (dataplane.Stats, error)
	Hits(visit func(rule.CauseID, stat.Hit))
	Maps() ([]xdpprog.MapUsage, error)
	Config() dataplane.Config
}

// Agent is the control loop, as far as it is measured.
type Agent interface {
	State() State
	Cause(rule.CauseID) rule.Cause
	// InForce keeps those of refs whose policies are known still.
	InForce(refs []PolicyKey) []PolicyKey
}

// State is the state of the control loop.
type State struct {
	Node       string
	Version    string         // of Sluice
	NotReady   string         // why it is not ready; "": it is
	NotHealthy string         // why it should be started anew; "": it is fine
	Generation uint64         // in force
	Enforced   int            // endpoints with rules
	Isolated   int            // endpoints that wait for their first rules
	Pending    int            // pods without a link
	Rejected   map[string]int // by kind, objects that are not in force as written
	Watches    []Watch
	Failures   uint64 // turns of the loop that failed

	// Calls of Services of which pods may reach only some backends; and packets
	// that were dropped where the host translates them.
	CallsGuarded, CallsClosed int
	ServiceDrops              uint64
}

// Watch is the state of a resource that is followed.
type Watch struct {
	Resource string
	Synced   bool
	Healthy  bool
	Current  time.Time // zero: never
	Objects  int
}

// Metrics are all metrics of an agent.
type Metrics struct {
	agent    Agent
	registry *prometheus.Registry
	apply    prometheus.Histogram
	totals   *hubble.Totals // nil: not wanted
}

// New returns the metrics of an agent.
func New(cfg Config, plane Plane, agent Agent, observer *observe.Observer) *Metrics {
	m := &Metrics{agent: agent, registry: prometheus.NewRegistry()}
	m.apply = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "sluice_policy_apply_duration_seconds",
		Help: "Time from a change in the store to the rules in force that follow it.",
		// From an added pod (tens of microseconds) to a cluster's first rules.
		Buckets:                     []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100,
	})
	m.registry.MustRegister(
		m.apply,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newPlaneCollector(plane),
		newAgentCollector(plane, agent, observer),
		newPolicyCollector(cfg.Policies, plane, agent),
	)
	if cfg.Hubble {
		m.totals = hubble.NewTotals()
		m.registry.MustRegister(hubbleCollector{m.totals, observer})
		observer.Tap(m.totals.Add)
	}
	return m
}

// Applied notes that rules came into force, and how long after the first change
// that they follow.
func (m *Metrics) Applied(after time.Duration) { m.apply.Observe(after.Seconds()) }

// Gatherer returns what the metrics are read from.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// atOnce is how many requests for metrics are answered at a time: each reads
// all.
const atOnce = 3

// Handler serves /metrics, /healthz and /readyz.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, MaxRequestsInFlight: atOnce, ErrorHandling: promhttp.ContinueOnError,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "healthy", m.agent.State().NotHealthy)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, "ready", m.agent.State().NotReady)
	})
	return mux
}

func answer(w http.ResponseWriter, good, bad string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if bad != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		good = bad
	}
	_, _ = w.Write([]byte(good + "\n")) // fails only if the client is gone
}
