package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/dataplane"
)

var (
	uplinkDesc     = desc("uplink_info", "A NIC of the node that is an uplink: on, off or stalled, and how its frames travel: zerocopy, copy, mixed or none.", "uplink", "state", "mode")
	uplinkTookDesc = desc("uplink_received_packets_total", "Packets that a worker took from a queue of an uplink.", "uplink", "queue", "worker")
	uplinkLostDesc = desc("uplink_lost_packets_total", "Packets of a queue of an uplink that found no room.", "uplink", "queue", "worker")
)

func describeUplinks(out chan<- *prometheus.Desc) {
	out <- uplinkDesc
	out <- uplinkTookDesc
	out <- uplinkLostDesc
}

func collectUplinks(out chan<- prometheus.Metric, uplinks []dataplane.UplinkStats) {
	for _, u := range uplinks {
		out <- gauge(uplinkDesc, 1, u.Name, string(u.State), u.Mode)
		for _, q := range u.Queues {
			queue, worker := strconv.Itoa(q.Queue), strconv.Itoa(q.Worker)
			out <- counter(uplinkTookDesc, q.Packets, u.Name, queue, worker)
			out <- counter(uplinkLostDesc, q.Lost, u.Name, queue, worker)
		}
	}
}
