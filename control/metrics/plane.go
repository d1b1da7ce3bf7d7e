package metrics

import (
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-net/sluice/dataplane"
	"github.com/sluice-net/sluice/dataplane/stat"
	"github.com/sluice-net/sluice/xdpprog"
)

const namespace = "sluice_"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+name, help, labels, nil)
}

var (
	packetsDesc = desc("packets_total", "Packets judged at pods' links, by the pod's direction, the verdict, and by whom: a worker, or the kernel's caches of what workers judged before.", "direction", "verdict", "by")
	bytesDesc   = desc("bytes_total", "Bytes of the packets of sluice_packets_total.", "direction", "verdict", "by")
	dropsDesc   = desc("drops_total", "Packets dropped by workers and programs, by reason.", "reason")
	programDesc = desc("program_actions_total", "What the BPF programs did with packets that they did not drop: hit and shortcut are packets allowed by the flow cache, steered ones went to a worker, admitted are flows.", "action")

	flowsDesc    = desc("flow_table_entries", "Live flows in a worker's flow table.", "worker")
	flowsCapDesc = desc("flow_table_capacity", "Flows that a worker's flow table holds at most.", "worker")
	mapDesc      = desc("kernel_map_entries", "Entries of a BPF map.", "map")
	mapCapDesc   = desc("kernel_map_capacity", "Entries that a BPF map holds at most.", "map")

	aliveDesc = desc("worker_alive", "Whether a worker serves its queue and has shown so within the heartbeat timeout.", "worker")
	beatDesc  = desc("worker_heartbeat_age_seconds", "Time since a worker's last heartbeat.", "worker")
	busyDesc  = desc("worker_busy_seconds_total", "Time a worker was awake; its rate is the worker's busy ratio.", "worker")
	xskDesc   = desc("xsk_events_total", "The kernel's counters of a worker's AF_XDP sockets (XDP_STATISTICS).", "worker", "event")
	infoDesc  = desc("worker_info", "How a worker's frames travel: copy or zero-copy.", "worker", "port", "mode")

	generatedDesc = desc("events_generated_total", "Events that the workers generated, delivered or lost.")
	eventsDesc    = desc("events_lost_total", "Events that found no room in a worker's ring of events or of denials.", "ring")
)

// verdicts says where each counter of a verdict goes.
var verdicts = []struct {
	direction, verdict string
	packets, bytes     stat.ID
	kernel             uint8 // index of dataplane.Stats.Kernel
}{
	{"egress", "allowed", stat.EgressAllowedPackets, stat.EgressAllowedBytes, fromPod},
	{"egress", "denied", stat.EgressDeniedPackets, stat.EgressDeniedBytes, fromPod + xdpprog.TrafficDenied},
	{"ingress", "allowed", stat.IngressAllowedPackets, stat.IngressAllowedBytes, toPod},
	{"ingress", "denied", stat.IngressDeniedPackets, stat.IngressDeniedBytes, toPod + xdpprog.TrafficDenied},
}

const (
	fromPod = uint8(xdpprog.HookFromPod)
	toPod   = uint8(xdpprog.HookToPod)
)

// workerCounters are those that are exported by worker as they are.
var workerCounters = []struct {
	id   stat.ID
	desc *prometheus.Desc
}{
	{stat.RxPackets, desc("worker_received_packets_total", "Packets taken from the receive ring.", "worker")},
	{stat.RxBytes, desc("worker_received_bytes_total", "Bytes taken from the receive ring.", "worker")},
	{stat.TxPackets, desc("worker_sent_packets_total", "Packets put into the transmit rings.", "worker")},
	{stat.TxBytes, desc("worker_sent_bytes_total", "Bytes put into the transmit rings.", "worker")},
	{stat.AuditPackets, desc("worker_audit_packets_total", "Packets allowed only because the policy that denies them is an audit.", "worker")},
	{stat.LinkPackets, desc("worker_neighbour_packets_total", "ARP, neighbour discovery and group membership packets that went by.", "worker")},
	{stat.FlowHits, desc("flow_hits_total", "Packets of a flow that the worker knew.", "worker")},
	{stat.FlowMisses, desc("flow_misses_total", "Packets that had to be classified.", "worker")},
	{stat.FlowsNew, desc("flows_opened_total", "Flows entered into a flow table.", "worker")},
	{stat.FlowsEnded, desc("flows_ended_total", "Flows removed from a flow table.", "worker")},
	{stat.FlowsEvicted, desc("flows_evicted_total", "Flows removed from a flow table to make room.", "worker")},
	{stat.FlowsRejudged, desc("flows_rejudged_total", "Flows judged anew because rules changed.", "worker")},
	{stat.CacheWrites, desc("flow_cache_writes_total", "Entries written to the kernel's flow cache.", "worker")},
	{stat.CacheDeletes, desc("flow_cache_deletes_total", "Entries deleted from the kernel's flow cache.", "worker")},
	{stat.CacheErrors, desc("flow_cache_errors_total", "Entries that the kernel's caches refused.", "worker")},
	{stat.LookupsHeld, desc("dns_answers_held_total", "Answers of resolvers that waited for the rules of the addresses they bring.", "worker")},
	{stat.LookupsLate, desc("dns_answers_late_total", "Held answers that were let go before those rules were in force.", "worker")},
	{stat.LookupsUnheld, desc("dns_answers_unheld_total", "Answers of resolvers that could not be held.", "worker")},
	{stat.Bursts, desc("worker_bursts_total", "Bursts of packets.", "worker")},
	{stat.Polls, desc("worker_polls_total", "Times that a worker went to sleep.", "worker")},
	{stat.FillStarved, desc("worker_fill_starved_total", "Times that the kernel ran out of frames to receive into.", "worker")},
	{stat.WakeupErrors, desc("worker_wakeup_errors_total", "Failed system calls of receive or transmit.", "worker")},
}

// mapsEvery is how long the counted entries of the maps hold.
const mapsEvery = 10 * time.Second

// planeCollector reads the dataplane.
type planeCollector struct {
	plane Plane

	mu     sync.Mutex // guards what follows
	maps   []xdpprog.MapUsage
	mapsAt time.Time
}

func newPlaneCollector(p Plane) *planeCollector { return &planeCollector{plane: p} }

// Describe implements prometheus.Collector.
func (c *planeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{packetsDesc, bytesDesc, dropsDesc, programDesc, flowsDesc, flowsCapDesc,
		mapDesc, mapCapDesc, aliveDesc, beatDesc, busyDesc, xskDesc, infoDesc, generatedDesc, eventsDesc} {
		out <- d
	}
	for _, w := range workerCounters {
		out <- w.desc
	}
	describeUplinks(out)
}

// Collect implements prometheus.Collector.
func (c *planeCollector) Collect(out chan<- prometheus.Metric) {
	stats, err := c.plane.Stats()
	if err != nil {
		out <- prometheus.NewInvalidMetric(programDesc, err)
		return
	}
	var sum stat.Snapshot
	var lost, lostDeny uint64
	for i := range stats.Workers {
		w := &stats.Workers[i]
		sum.Add(&w.Counts)
		lost, lostDeny = lost+w.Lost, lostDeny+w.LostDeny
		collectWorker(out, strconv.Itoa(i), w)
	}
	for _, v := range verdicts {
		out <- counter(packetsDesc, sum.Counts[v.packets], v.direction, v.verdict, "worker")
		out <- counter(bytesDesc, sum.Counts[v.bytes], v.direction, v.verdict, "worker")
		out <- counter(packetsDesc, stats.Kernel[v.kernel].Packets, v.direction, v.verdict, "kernel")
		out <- counter(bytesDesc, stats.Kernel[v.kernel].Bytes, v.direction, v.verdict, "kernel")
	}
	for r, n := range stats.Drops {
		if stat.Reason(r) != stat.OK {
			out <- counter(dropsDesc, n, stat.Reason(r).String())
		}
	}
	for p, n := range stats.Programs {
		out <- counter(programDesc, n, xdpprog.Counter(p).String())
	}
	out <- counter(generatedDesc, stats.Written+stats.Lost)
	out <- counter(eventsDesc, lost, "events")
	out <- counter(eventsDesc, lostDeny, "denials")
	collectUplinks(out, stats.Uplinks)
	c.collectMaps(out)
}

func collectWorker(out chan<- prometheus.Metric, id string, w *dataplane.WorkerStats) {
	for _, wc := range workerCounters {
		out <- counter(wc.desc, w.Counts.Counts[wc.id], id)
	}
	out <- gauge(flowsDesc, float64(w.Flows), id)
	out <- gauge(flowsCapDesc, float64(w.FlowsCap), id)
	out <- gauge(aliveDesc, truth(w.Alive), id)
	out <- gauge(beatDesc, w.BeatAge.Seconds(), id)
	out <- gauge(infoDesc, 1, id, w.Port, w.Mode)
	out <- prometheus.MustNewConstMetric(busyDesc, prometheus.CounterValue, float64(w.Counts.Counts[stat.BusyNs])/1e9, id)
	for _, x := range []struct {
		event string
		n     uint64
	}{
		{"rx_dropped", w.Rings.RxDropped}, {"rx_invalid_descriptors", w.Rings.RxInvalid},
		{"rx_ring_full", w.Rings.RxRingFull}, {"fill_ring_empty", w.Rings.RxFillRingEmpty},
		{"tx_invalid_descriptors", w.Rings.TxInvalid}, {"tx_ring_empty", w.Rings.TxRingEmpty},
	} {
		out <- counter(xskDesc, x.n, id, x.event)
	}
}

func (c *planeCollector) collectMaps(out chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mapsAt.IsZero() || time.Since(c.mapsAt) > mapsEvery {
		maps, err := c.plane.Maps()
		if err != nil {
			out <- prometheus.NewInvalidMetric(mapDesc, err)
			return
		}
		c.maps, c.mapsAt = maps, time.Now()
	}
	for _, m := range c.maps {
		out <- gauge(mapDesc, float64(m.Entries), m.Name)
		out <- gauge(mapCapDesc, float64(m.Max), m.Name)
	}
}

func counter(d *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge(d *prometheus.Desc, n float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
