package e2e_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
)

// takeOn gives a pod one more address, as a pod may do that configures its own
// network.
func (n *node) takeOn(p *pod, addr string) {
	n.Helper()
	must(n.T, p.Namespace().Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr + "/32")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(eth0, a)
	}))
}

// TestImpostorRestart has a pod take on the address of an older one while both
// links are there. An agent that starts then still tells which is which.
func TestImpostorRestart(t *testing.T) {
	t.Parallel()
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{shape: shape})
			probes := append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)
			p.probeAll(probes...)
			p.takeOn(p.other, p.friend.v4.String())
			p.signal(unix.SIGKILL)
			p.start()
			p.settle()
			p.probeAll(probes...)
		})
	}
}

// TestImpostor has a pod take on the address of a trusted pod whose link is not
// there yet. It stays what it is: who may reach it and whom it may reach.
func TestImpostor(t *testing.T) {
	t.Parallel()
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{shape: shape})
			p.settle()
			const stolen = "10.0.1.77"
			p.takeOn(p.other, stolen)
			p.write("pod-trusted", fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: trusted, namespace: x, uid: trusted, labels: {role: friend}}\n"+
				"spec: {nodeName: node}\nstatus: {phase: Running, podIPs: [{ip: %s}]}\n", stolen))
			var pending []string
			p.eventually("the trusted pod waits for its link", func() bool {
				s, err := p.api.Status(t.Context())
				must(t, err)
				pending = s.Pending
				return slices.ContainsFunc(s.Pending, func(name string) bool { return name == "x/trusted" })
			})
			eps, err := p.api.Endpoints(t.Context())
			must(t, err)
			if slices.ContainsFunc(eps, func(e api.Endpoint) bool { return e.Pod == "trusted" }) {
				t.Errorf("pending %v, and endpoints %+v", pending, eps)
			}
			p.probeAll(append(all(p.friend, p.other, 80, true), all(p.other, p.server, 80, false, "server")...)...)
		})
	}
}
