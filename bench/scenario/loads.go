package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/traffic"
)

// fromFrames are the systems that frames are carried by, whatever is in them.
var fromFrames = []string{"kernel", "nftables", "dpdk", "ovs", "asavie-tuned", "sluice", "inspect", Ceiling}

// fromFrames6 are those of them that know IPv6.
var fromFrames6 = []string{"kernel", "nftables", "asavie-tuned", "sluice", "inspect", Ceiling}

// methods are what RFC 2544 measures, by frames that carry numbers.
func methods() []Workload {
	const what = "highest rate at ≤ 0.1 %% loss (RFC 2544), and latency at 50 %% and 90 %% of it: %s, established, numbered; loss and latency at pod B's eth0"
	return []Workload{
		{Name: "rfc2544", Standard: []string{"kernel", "nftables", "dpdk", "sluice", "inspect"}, Frames: true, About: fmt.Sprintf(what, "64-byte frames of 1024 flows out of a packet socket"),
			Systems: fromFrames, Family: 4, CPUs: 2, Flows: someFlows, Run: rfc2544(small(traffic.PacketSocket, someFlows))},
		{Name: "rfc2544-xdp", Frames: true, About: fmt.Sprintf(what, "64-byte frames of 1024 flows out of an AF_XDP socket"),
			Systems: fromFrames, Family: 4, CPUs: 2, Flows: someFlows, Run: rfc2544(small(traffic.AFXDP, someFlows))},
		{Name: "rfc2544-imix", Frames: true, About: fmt.Sprintf(what, "IMIX (7 × 64, 4 × 594, 1 × 1518) of 1024 flows"),
			Systems: fromFrames, Family: 4, CPUs: 2, Flows: someFlows,
			Run: rfc2544(blast{sizes: traffic.IMIX, flows: someFlows, answered: true})},
		{Name: "rfc2544-v6", About: fmt.Sprintf(what, "128-byte frames over IPv6 (RFC 8219) of 1024 flows out of a packet socket"),
			Systems: fromFrames6, Family: 6, CPUs: 2, Flows: someFlows,
			Run: rfc2544(blast{sizes: smallest6, flows: someFlows, answered: true})},
	}
}

// loads are floods of frames of many kinds.
func loads() (ws []Workload) {
	add := func(name, about, sweep, xName string, x float64, flows int, b blast) *Workload {
		ws = append(ws, Workload{
			Name: name, About: about, Systems: fromFrames, Family: 4, CPUs: 2, Flows: flows, Frames: true,
			Sweep: sweep, XName: xName, X: x, Run: b.blasting(),
		})
		return &ws[len(ws)-1]
	}
	for _, size := range []int{64, 128, 256, 512, 1024, 1518} {
		add(fmt.Sprintf("size-%d", size), fmt.Sprintf("frames of %d bytes (with checksum) of 1024 established flows, out of a packet socket", size),
			"size", "bytes a frame", float64(size), someFlows,
			blast{sizes: []traffic.SizeShare{{Bytes: size, Share: 1}}, flows: someFlows, answered: true})
	}
	jumbo := add("size-9018", "frames of 9018 bytes: an MTU of 9000", "", "", 0, someFlows,
		blast{sizes: []traffic.SizeShare{{Bytes: 9018, Share: 1}}, flows: someFlows, answered: true})
	jumbo.MTU, jumbo.Systems = 9000, []string{"kernel", "nftables", "sluice", Ceiling}
	add("size-imix", "IMIX (7 × 64, 4 × 594, 1 × 1518) of 1024 established flows", "", "", 0, someFlows,
		blast{sizes: traffic.IMIX, flows: someFlows, answered: true})
	for _, n := range []int{1, 1000, 100000} {
		add("flows-"+short(n), fmt.Sprintf("64-byte frames of %d established flows, each as often, out of a packet socket", n),
			"flows", "flows", float64(n), n, small(traffic.PacketSocket, n))
	}
	zipf := small(traffic.PacketSocket, 100000)
	zipf.zipf = 1.1
	add("flows-zipf", "64-byte frames of 100,000 established flows by Zipf's law (1.1)", "", "", 0, 100000, zipf)
	add("blast-xdp", "64-byte frames of 1024 established flows out of an AF_XDP socket in pod A", "", "", 0, someFlows, small(traffic.AFXDP, someFlows))
	replay := add("replay", "packets of a capture (--pcap), over and over, with the pods' addresses; UDP is counted", "", "", 0, 1<<17, blast{pcap: true})
	replay.Replays = true
	return ws
}

// attacks are floods that nobody means well with, and what they do to others.
func attacks() (ws []Workload) {
	for _, a := range traffic.Attacks {
		for _, family := range []int{4, 6} {
			w := Workload{
				Name: "attack-" + string(a), About: fmt.Sprintf("%s out of a packet socket in pod A; what pod B gets of it that is %s", attackNames[a], counted(a, family)),
				Systems: filters, Family: family, CPUs: 2, Flows: 1 << 17, Run: blast{attack: a}.blasting(),
			}
			if family == 6 {
				w.Name, w.About, w.Systems = w.Name+"-v6", "over IPv6: "+w.About, filters6
			}
			ws = append(ws, w)
		}
	}
	for _, a := range []traffic.Attack{traffic.RandomTuples, traffic.SYNFlood} {
		var standard []string
		if a == traffic.RandomTuples {
			standard = brief
		}
		ws = append(ws, Workload{
			Name: "beside-" + string(a), Standard: standard,
			About:   fmt.Sprintf("a connection of 1-byte requests from A to B, alone and beside %.0f packets/s of %s from another pod to B, which is allowed", besideRate, attackNames[a]),
			Systems: filters[:len(filters)-1], Family: 4, CPUs: 2, Flows: 1 << 17, Pods: 1, Limited: true, Rules: Rules{Also: []netip.Addr{otherAddr(0)}}, Run: beside(a),
		})
	}
	return ws
}

func counted(a traffic.Attack, family int) string {
	switch (blast{attack: a}).counted(family) {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_FRAGMENT:
		return "a fragment"
	}
	return "UDP"
}

var attackNames = map[traffic.Attack]string{
	traffic.RandomTuples: "TCP and UDP with random ports", traffic.SYNFlood: "TCP SYNs with random ports",
	traffic.Fragments: "fragments of packets that are never whole", traffic.Malformed: "packets with malformed headers",
}

// besideRate is the rate of a flood beside others: enough to be felt by who
// judges every packet of it, and not so much that sending it takes the machine.
const besideRate = 50e3

// besideBurst is how many packets of it come at a time, a millisecond's worth. Who
// sends each when it is due has to spin for it, on a CPU that a flood out of a
// network card leaves to who judges.
const besideBurst = 50

// beside measures requests alone, beside a flood of one established flow, and
// beside an attack of the same rate, all in one stage, the latter two twice in
// turns. The share that is kept is that beside the attack by that beside the harmless
// flood: what the CPU time of sending costs is in both.
func beside(a traffic.Attack) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		other := s.Net.Pods()[2]
		index, mac, err1 := linkIndex(other.Namespace(), "eth0")
		_, hop, err2 := linkIndex(s.Net.Host(), other.Link())
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		harmless, err1 := traffic.Mix{FromMAC: mac, ToMAC: hop, From: other.Addrs()[0], To: addrsB[0], Sizes: smallest, Flows: 1}.Load()
		attack, err2 := a.Load(mac, hop, other.Addrs()[0], addrsB[0])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		rate := func(l *traffic.Load) (perSecond float64, err error) {
			if l != nil {
				f, bad := traffic.Blast{Client: s.end(other, 1), Ifindex: index, Load: l, Rate: besideRate, Burst: besideBurst}.Start(ctx)
				if bad != nil {
					return 0, bad
				}
				defer func() { err = errors.Join(err, f.Stop()) }()
			}
			r, err := traffic.Request{
				Client: s.end(s.A, 0), Server: s.end(s.B, 0), To: s.service(), Warmup: warmup(d), Duration: d / 2,
			}.Run(ctx)
			if err != nil {
				return 0, err
			}
			return float64(r.Latency.Count()) / r.Elapsed.Seconds(), nil
		}
		var got [5]float64
		for i, l := range []*traffic.Load{nil, harmless, attack, attack, harmless} {
			var err error
			if got[i], err = rate(l); err != nil {
				return nil, err
			}
		}
		alone, with, under := got[0], (got[1]+got[4])/2, (got[2]+got[3])/2
		return []Metric{
			{Name: "kept", Unit: "%", Value: 100 * under / with, Better: Higher},
			{Name: "alone", Unit: "requests/s", Value: alone},
			{Name: "harmless", Unit: "requests/s", Value: with},
			{Name: "attacked", Unit: "requests/s", Value: under},
		}, nil
	}
}
