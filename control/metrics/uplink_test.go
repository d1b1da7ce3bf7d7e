package metrics_test

import (
	"testing"

	"github.com/sluice-net/sluice/control/metrics"
	"github.com/sluice-net/sluice/dataplane"
)

func TestUplinks(t *testing.T) {
	f := newFake()
	f.stats.Uplinks = []dataplane.UplinkStats{
		{Name: "eth0", State: dataplane.UplinkOn, Mode: "zerocopy", Queues: []dataplane.UplinkQueueStats{
			{Queue: 0, Worker: 0, Mode: "zerocopy", Packets: 7}, {Queue: 1, Worker: 1, Mode: "zerocopy", Packets: 8, Lost: 9}}},
		{Name: "bond0", State: dataplane.UplinkOff, Reason: "it is a bond", Mode: "none"},
	}
	m, _, _ := newMetrics(t, f, metrics.Default())
	f.expect(t, m, map[string]float64{
		`sluice_uplink_info{mode=zerocopy,state=on,uplink=eth0}`:             1,
		`sluice_uplink_info{mode=none,state=off,uplink=bond0}`:               1,
		`sluice_uplink_received_packets_total{queue=0,uplink=eth0,worker=0}`: 7,
		`sluice_uplink_received_packets_total{queue=1,uplink=eth0,worker=1}`: 8,
		`sluice_uplink_lost_packets_total{queue=1,uplink=eth0,worker=1}`:     9,
	})
}
