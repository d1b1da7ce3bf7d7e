package e2e_test

import (
	"fmt"
	"testing"

	"github.com/sluice-net/sluice/control"
)

// hoard has a pod keep what it receives: all goes into a queue that lets nothing
// out before long. It takes CAP_NET_ADMIN, in the pod's own namespace only.
func (n *node) hoard(p *pod) {
	n.Helper()
	for _, command := range [][]string{
		{"ip", "link", "add", "ifb0", "type", "ifb"},
		{"ip", "link", "set", "ifb0", "up"},
		{"tc", "qdisc", "add", "dev", "ifb0", "root", "tbf", "rate", "8bit", "burst", "1600", "limit", "64m"},
		{"tc", "qdisc", "add", "dev", "eth0", "ingress"},
		{"tc", "filter", "add", "dev", "eth0", "parent", "ffff:", "protocol", "all", "u32", "match", "u32", "0", "0",
			"action", "mirred", "egress", "redirect", "dev", "ifb0"},
	} {
		n.run(p.Namespace(), command[0], command[1:]...)
	}
}

// TestHoarders has pods keep what they receive. A frame that one of them holds
// must not be missing where others are served: neither the frames of the UMEM nor
// the room in the steering port's rings.
func TestHoarders(t *testing.T) {
	const hoarders = 3
	for _, offload := range []bool{true, false} {
		for _, workers := range []int{1, 2} {
			t.Run(fmt.Sprintf("offload=%v,workers=%d", offload, workers), func(t *testing.T) {
				t.Parallel()
				n := newPair(t, setup{change: func(c *control.Config) {
					c.Offload, c.Workers, c.Frames = offload, workers, 512
				}})
				talk := n.talk(n.friend, n.server, 4, 80)
				for i := range hoarders {
					p := n.addPod(fmt.Sprintf("hoarder-%d", i), 10+i, "app: hoarder")
					n.settle()
					n.probeAll(&probe{proto: "udp", from: n.friend.Namespace(), src: n.friend.v4, dst: p.v4, dport: 9})
					n.hoard(p)
					// New flows all, so that each goes by way of a worker, and few
					// by one socket, which would have to wait for its room.
					for first := 10000; first < 12000; first += 100 {
						n.sprayPorts(n.friend, p, first, 100)
					}
					talk.say(p.name + " has its packets")
					n.probeAll(all(n.friend, n.server, 80, true)...)
				}
			})
		}
	}
}
