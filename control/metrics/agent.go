package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/control/observe"
)

var (
	buildDesc = desc("build_info", "The build that runs.", "version", "goversion", "goarch")
	agentDesc = desc("agent_info", "How the agent is configured.", "node", "mode", "on_agent_down")

	readyDesc      = desc("ready", "Whether first policies are in force on all known pods and all workers serve.")
	healthyDesc    = desc("healthy", "Whether all workers and the control loop move.")
	generationDesc = desc("policy_generation", "Generation of the rules in force.")
	failuresDesc   = desc("policy_apply_failures_total", "Attempts to apply changes that failed; the last good rules stay.")
	endpointsDesc  = desc("endpoints", "Pods of this node by state: enforced; isolated, without rules yet; pending, without a link yet.", "state")
	rejectedDesc   = desc("policies_rejected", "Objects that are not in force as they are written.", "kind")

	callsDesc        = desc("service_calls", "Calls, by addresses of pods and of Services, of which pods may reach only some backends: guarded, judged where the host has translated them; closed, not let through.", "state")
	serviceDropsDesc = desc("service_drops_total", "Packets dropped where the host had translated them, towards or from a Service's backend that the pod may not reach.")

	watchSyncedDesc  = desc("watch_synced", "Whether the objects of a resource were known in full once.", "resource")
	watchHealthyDesc = desc("watch_healthy", "Whether a resource is being followed.", "resource")
	watchStaleDesc   = desc("watch_staleness_seconds", "Time for which what is known of a resource may be out of date; 0 while it is followed, absent before it was known.", "resource")
	watchObjectsDesc = desc("watch_objects", "Objects known of a resource.", "resource")

	deliveredDesc = desc("events_delivered_total", "Events taken from the workers' rings.")
	missedDesc    = desc("events_missed_total", "Events that clients did not read before the history forgot them, over all clients.")
	heldDesc      = desc("history_events", "Events in the history.")
	heldCapDesc   = desc("history_capacity", "Events that the history holds at most.")
)

// agentCollector reads the control loop and the observer.
type agentCollector struct {
	plane    Plane
	agent    Agent
	observer *observe.Observer
}

func newAgentCollector(p Plane, a Agent, o *observe.Observer) agentCollector {
	return agentCollector{plane: p, agent: a, observer: o}
}

// Describe implements prometheus.Collector.
func (agentCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildDesc, agentDesc, readyDesc, healthyDesc, generationDesc, failuresDesc, endpointsDesc,
		rejectedDesc, callsDesc, serviceDropsDesc, watchSyncedDesc, watchHealthyDesc, watchStaleDesc, watchObjectsDesc, deliveredDesc, missedDesc, heldDesc, heldCapDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c agentCollector) Collect(out chan<- prometheus.Metric) {
	s := c.agent.State()
	cfg := c.plane.Config()
	mode, down := "inspect", "closed"
	if cfg.Offload {
		mode = "offload"
	}
	if cfg.FailOpen {
		down = "open"
	}
	out <- gauge(buildDesc, 1, s.Version, runtime.Version(), runtime.GOARCH)
	out <- gauge(agentDesc, 1, s.Node, mode, down)
	out <- gauge(readyDesc, truth(s.NotReady == ""))
	out <- gauge(healthyDesc, truth(s.NotHealthy == ""))
	out <- gauge(generationDesc, float64(s.Generation))
	out <- counter(failuresDesc, s.Failures)
	out <- gauge(endpointsDesc, float64(s.Enforced), "enforced")
	out <- gauge(endpointsDesc, float64(s.Isolated), "isolated")
	out <- gauge(endpointsDesc, float64(s.Pending), "pending")
	for kind, n := range s.Rejected {
		out <- gauge(rejectedDesc, float64(n), kind)
	}
	out <- gauge(callsDesc, float64(s.CallsGuarded), "guarded")
	out <- gauge(callsDesc, float64(s.CallsClosed), "closed")
	out <- counter(serviceDropsDesc, s.ServiceDrops)
	for _, w := range s.Watches {
		out <- gauge(watchSyncedDesc, truth(w.Synced), w.Resource)
		out <- gauge(watchHealthyDesc, truth(w.Healthy), w.Resource)
		out <- gauge(watchObjectsDesc, float64(w.Objects), w.Resource)
		switch {
		case w.Healthy:
			out <- gauge(watchStaleDesc, 0, w.Resource)
		case !w.Current.IsZero():
			out <- gauge(watchStaleDesc, time.Since(w.Current).Seconds(), w.Resource)
		}
	}
	o := c.observer.Stats()
	out <- counter(deliveredDesc, o.Read)
	out <- counter(missedDesc, o.Missed)
	out <- gauge(heldDesc, float64(o.Held))
	out <- gauge(heldCapDesc, float64(o.Cap))
}
