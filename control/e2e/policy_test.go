package e2e_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
)

// everyKind runs a test on both shapes of node, in both modes.
func everyKind(t *testing.T, test func(t *testing.T, s setup)) {
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		for _, offload := range []bool{true, false} {
			mode := "offload"
			if !offload {
				mode = "inspect"
			}
			t.Run(fmt.Sprintf("%s/%s", shape, mode), func(t *testing.T) {
				t.Parallel()
				test(t, setup{shape: shape, change: func(c *control.Config) { c.Offload = offload }})
			})
		}
	}
}

const isolate = "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\n"

func allowFrom(labels string, ports string) string {
	return "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n" +
		"- from: [{podSelector: {matchLabels: {" + labels + "}}}]\n  ports: " + ports + "\n"
}

// TestPolicies tries who may reach whom, in both protocols and families, and
// asks the API why not.
func TestPolicies(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newNode(t, s)
		server := n.addPod("server", 1, "app: server")
		friend := n.addPod("friend", 2, "role: friend")
		other := n.addPod("other", 3, "role: other")
		caged := n.addPod("caged", 4, "role: caged")
		ext, err := n.net.AddExternal(netip.MustParseAddr("203.0.113.7"))
		must(t, err)
		for _, p := range []*pod{server, friend, other} {
			n.serveBoth(p, 80)
			n.serveBoth(p, 81)
		}
		n.serve(ext.Namespace(), ext.Addr(), 80)
		n.policy("default-deny", isolate)
		n.policy("friends", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
		n.policy("cage", "podSelector: {matchLabels: {role: caged}}\npolicyTypes: [Egress]\negress:\n"+
			"- to: [{podSelector: {matchLabels: {role: friend}}}]")
		n.settle()

		host4, host6 := n.net.Config().NodeAddrs[0], n.net.Config().NodeAddrs[1]
		probes := []*probe{
			// The node may always reach its own pods.
			{proto: "tcp", from: n.net.Host(), src: host4, dst: server.v4, dport: 81, pass: true},
			{proto: "udp", from: n.net.Host(), src: host6, dst: server.v6, dport: 81, pass: true},
			// From and to the world outside.
			{proto: "tcp", from: ext.Namespace(), src: ext.Addr(), dst: server.v4, dport: 80, reason: "policy", policy: "default-deny"},
			{proto: "udp", from: ext.Namespace(), src: ext.Addr(), dst: other.v4, dport: 80, pass: true},
			{proto: "tcp", from: server.Namespace(), src: server.v4, dst: ext.Addr(), dport: 80, pass: true},
			{proto: "udp", from: caged.Namespace(), src: caged.v4, dst: ext.Addr(), dport: 80, reason: "policy", policy: "cage"},
			// A pod may always reach itself; that never leaves it.
			{proto: "tcp", from: server.Namespace(), src: server.v4, dst: server.v4, dport: 81, pass: true},
		}
		probes = append(probes, all(friend, server, 80, true)...)
		probes = append(probes, all(friend, server, 81, false, "default-deny")...)
		probes = append(probes, all(other, server, 80, false, "default-deny")...)
		probes = append(probes, all(server, other, 80, true)...) // and the replies of it
		probes = append(probes, all(caged, friend, 80, true)...)
		probes = append(probes, all(caged, other, 80, false, "cage")...)
		n.probeAll(probes...)

		allowed := n.event("friend's connection", func(f *api.Flow) bool {
			return f.Event == "new" && f.Proto == "TCP" && f.Src.Pod == "friend" && f.Dst.Pod == "server" && f.Dst.Port == 80
		})
		if len(allowed.DecidedBy) != 1 || allowed.DecidedBy[0].Name != "friends" || allowed.DecidedBy[0].Rule != 0 {
			t.Errorf("allowed by %+v, want rule 0 of friends", allowed.DecidedBy)
		}
		for _, f := range n.events() {
			if f.Event == "new" && f.Dst.Pod == "server" && f.Dst.Port == 81 && f.Src.Pod != "" {
				t.Errorf("allowed: %s", describe(&f))
			}
		}
	})
}

// TestPing sees that echo follows policies: by rules for all protocols only,
// and its replies.
func TestPing(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newNode(t, s)
		server := n.addPod("server", 1, "app: server")
		friend := n.addPod("friend", 2, "role: friend")
		other := n.addPod("other", 3, "role: other")
		n.apply("friends", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n"+
			"- from: [{podSelector: {matchLabels: {role: friend}}}]\n"+
			"- from: [{podSelector: {matchLabels: {role: other}}}]\n  ports: [{port: 80}]")
		for _, family := range []int{4, 6} {
			if got := n.ping(friend, server, family, 3, pingPatience); got != 3 {
				t.Errorf("friend: %d of 3 replies of family %d", got, family)
			}
			if got := n.ping(server, other, family, 3, pingPatience); got != 3 {
				t.Errorf("server itself: %d of 3 replies of family %d", got, family)
			}
			if got := n.ping(other, server, family, 2, pingSilence); got != 0 {
				t.Errorf("other: %d replies of family %d", got, family)
			}
		}
		f := n.event("denied echo", func(f *api.Flow) bool {
			return f.Event == "denied" && f.Proto == "ICMP" && f.Src.Pod == "other" && f.Dst.Pod == "server"
		})
		if len(f.DecidedBy) != 1 || f.DecidedBy[0].Name != "friends" {
			t.Errorf("decided by %+v", f.DecidedBy)
		}
	})
}
