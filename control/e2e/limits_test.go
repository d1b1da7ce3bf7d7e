package e2e_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/source/manifest"
)

// TestTablesFull has far more flows than fit in any table: what is allowed
// still passes, and what is denied doesn't.
func TestTablesFull(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*control.Config)
	}{
		{"flow cache", func(c *control.Config) { c.FlowCache, c.DenyCache = 64, 64 }},
		{"flow table", func(c *control.Config) { c.FlowsPerQueue, c.FlowCache = 128, 4096 }},
		{"both", func(c *control.Config) { c.FlowsPerQueue, c.FlowCache, c.DenyCache = 128, 64, 64 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newPair(t, setup{change: c.change})
			talk := n.talk(n.friend, n.server, 4, 80)
			// Datagrams to many ports, none answered: half of them denied.
			n.spray(n.friend, n.other, 600)
			n.spray(n.other, n.server, 600)
			talk.say("tables full")
			var probes []*probe
			for range 40 {
				probes = append(probes, all(n.friend, n.server, 80, true)...)
			}
			for range 5 {
				probes = append(probes, all(n.other, n.server, 80, false, "server")...)
			}
			n.probeAll(probes...)
			n.spray(n.friend, n.other, 600)
			talk.say("tables full again")
			n.allow("role: nobody")
			talk.cut("tightened")
			n.allow("role: friend")
			talk.resumes("loosened")
		})
	}
}

// The tests here run alone: a flood fills the backlog of a CPU, which all
// namespaces of the machine share, and the kernel drops what others send.

// spray sends one datagram to each of many ports, of an address where nobody
// answers but with an ICMP error.
func (n *node) spray(from, to *pod, count int) {
	n.Helper()
	n.sprayPorts(from, to, 30000, count)
}

func (n *node) sprayPorts(from, to *pod, first, count int) {
	n.Helper()
	var conn *net.UDPConn
	must(n.T, from.Namespace().Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: from.v4.AsSlice()})
		return err
	}))
	defer conn.Close()
	for i := range count {
		_, err := conn.WriteToUDPAddrPort([]byte("spray"), at(to.v4, uint16(first+i)))
		if err != nil && !isRefused(err) {
			n.Fatal(err)
		}
	}
}

// TestBudget floods the agent with new flows of one pod. Another pod's
// connections all succeed.
func TestBudget(t *testing.T) {
	n := newPair(t, setup{change: func(c *control.Config) { c.MissRate, c.MissBurst = 2000, 100 }})
	n.serveBoth(n.friend, 80)
	var stop atomic.Bool
	var flood sync.WaitGroup
	for range 2 {
		flood.Go(func() {
			for !stop.Load() {
				n.spray(n.other, n.server, 500)
			}
		})
	}
	t.Cleanup(func() { stop.Store(true); flood.Wait() })
	n.eventually("the flood is limited", func() bool { return n.status().Drops["rate-limited"] > 1000 })
	for i := range 60 {
		if err := n.brief(t.Context(), n.friend, n.server, 4+2*(i%2), n.port()); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	flood.Wait()
	n.eventually("the flooding pod may open flows again", func() bool {
		r, err := n.other.Namespace().ProbeUDP(t.Context(), at(n.other.v4, n.port()), at(n.friend.v4, 80))
		return err == nil && r.Passed
	})
}

// TestNotAttached has a pod that can't be attached: it is said which, and what
// changes for the others is in force all the same, until it can.
func TestNotAttached(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		pods int // that there is room for
		many bool
		says string
	}{
		{"more pods than slots", 3, false, "all 3 endpoints in use"},
		{"more addresses than a pod may have", 4, true, "x/fourth: metadata.annotations[sluice.dev/ips]: the pod has 42 addresses in all, want at most 6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newPair(t, setup{change: func(cfg *control.Config) { cfg.MaxPods, cfg.Metrics.Listen = c.pods, metricsAddr }})
			talk := n.talk(n.friend, n.server, 4, 80)
			var annotation []string
			for i := range 40 {
				annotation = append(annotation, fmt.Sprintf("10.9.0.%d", i))
			}
			fourth := n.addPod("fourth", 4, "role: friend")
			if c.many {
				text := n.manifests["pod-fourth"]
				n.write("pod-fourth", strings.Replace(text, "{name: fourth,", "{name: fourth, annotations: {sluice.dev/ips: \""+strings.Join(annotation, ",")+"\"},", 1))
			}
			n.eventually("the pod is pending", func() bool { return slices.Contains(n.status().Pending, "x/fourth") })
			inForce := func(labels string) {
				n.Helper()
				n.policy("server", allowFrom(labels, "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
				n.eventually("manifests in force", func() bool {
					want, err := manifest.Digest(n.dir)
					must(t, err)
					return n.status().Digest == want
				})
			}
			inForce("role: nobody")
			talk.cut("tightened")
			n.probeAll(all(n.friend, n.server, 80, false, "server")...)
			inForce("role: friend")
			talk.resumes("loosened")
			s := n.status()
			if s.Ready || !slices.Equal(s.Pending, []string{"x/fourth"}) || !slices.ContainsFunc(s.Notes, func(x string) bool { return strings.Contains(x, c.says) }) {
				t.Errorf("ready %v, pending %v, notes %q", s.Ready, s.Pending, s.Notes)
			}
			if code, body := n.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "1 pods are not attached yet, x/fourth the first") {
				t.Errorf("readyz: %d %s", code, body)
			}
			if c.many {
				n.serveBoth(fourth, 80)
				n.probeAll(append(all(fourth, n.server, 80, false), all(n.server, fourth, 80, false)...)...)
				n.label(fourth, "role: friend")
			} else {
				n.removePod(n.other)
			}
			n.settle()
			n.probeAll(all(fourth, n.server, 80, true)...)
		})
	}
}
