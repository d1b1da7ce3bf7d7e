package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
)

// Names, labels and values as Hubble has them (pkg/hubble/metrics of Cilium), so
// that boards made for it work.
var (
	hubbleFlows    = prometheus.NewDesc("hubble_flows_processed_total", "Total number of flows processed.", []string{"protocol", "type", "subtype", "verdict"}, nil)
	hubbleVerdicts = prometheus.NewDesc("hubble_policy_verdicts_total", "Total number of network policy verdicts.", []string{"direction", "match", "action"}, nil)
	hubbleDrops    = prometheus.NewDesc("hubble_drop_total", "Number of dropped packets, those included that had no event of their own.", []string{"reason", "protocol"}, nil)
	hubbleLost     = prometheus.NewDesc("hubble_lost_events_total", "Number of lost events.", []string{"source"}, nil)
)

type hubbleCollector struct {
	totals   *hubble.Totals
	observer *observe.Observer
}

// Describe implements prometheus.Collector.
func (hubbleCollector) Describe(out chan<- *prometheus.Desc) {
	out <- hubbleFlows
	out <- hubbleVerdicts
	out <- hubbleDrops
	out <- hubbleLost
}

// Collect implements prometheus.Collector.
func (c hubbleCollector) Collect(out chan<- prometheus.Metric) {
	c.totals.Each(
		func(k hubble.FlowKind, n uint64) {
			out <- counter(hubbleFlows, n, k.Protocol, k.Type, k.Subtype, k.Verdict)
		},
		func(k hubble.VerdictKind, n uint64) {
			out <- counter(hubbleVerdicts, n, k.Direction, k.Match, k.Action)
		},
		func(k hubble.DropKind, n uint64) { out <- counter(hubbleDrops, n, k.Reason, k.Protocol) },
	)
	s := c.observer.Stats()
	out <- counter(hubbleLost, s.Lost, "PERF_EVENT_RING_BUFFER")
	out <- counter(hubbleLost, s.Missed, "HUBBLE_RING_BUFFER")
}
