package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
)

// TestPodsComeAndGo takes pods away under traffic, and puts others in their
// place with the same addresses and other rights. No other flow notices.
func TestPodsComeAndGo(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		steady := n.podStream(n.friend, n.server, 4, 80)
		steady6 := n.podStream(n.server, n.other, 6, 80)
		began, began6 := steady.mark(), steady6.mark()
		for round := range 3 {
			// The same addresses: once a friend, once not.
			labels, pass := "role: friend", round%2 == 0
			if !pass {
				labels = "role: stranger"
			}
			guest := n.addPod("guest", 9, labels)
			n.settle()
			var why []string
			if !pass {
				why = []string{"server"}
			}
			n.probeAll(all(guest, n.server, 80, pass, why...)...)
			leaving := n.stream(guest.Namespace(), guest.v4, n.other.v4, 80)
			leaving.flows()
			n.removePod(guest)
			n.settle()
			leaving.close()
			for _, ep := range n.endpoints() {
				if ep.Pod == "guest" {
					t.Fatalf("guest is still an endpoint: %+v", ep)
				}
			}
		}
		steady.intact("while pods came and went", began)
		steady6.intact("while pods came and went", began6)
	})
}

func (n *node) endpoints() []api.Endpoint {
	n.Helper()
	eps, err := n.api.Endpoints(n.Context())
	must(n.T, err)
	return eps
}

// TestManyPods adds a hundred pods and takes them away again.
func TestManyPods(t *testing.T) {
	t.Parallel()
	const count = 100
	n := newPair(t, setup{})
	steady := n.podStream(n.friend, n.server, 4, 80)
	began := steady.mark()
	start := time.Now()
	var crowd []*pod
	for i := range count {
		labels := "role: friend"
		if i%2 == 1 {
			labels = "role: stranger"
		}
		crowd = append(crowd, n.addPod(fmt.Sprintf("crowd-%d", i), 10+i, labels))
	}
	n.settle()
	t.Logf("%d pods: %v", count, time.Since(start))
	if eps := n.endpoints(); len(eps) != count+3 {
		t.Errorf("%d endpoints, want %d", len(eps), count+3)
	}
	var probes []*probe
	for i, p := range crowd {
		if i%2 == 0 {
			probes = append(probes, all(p, n.server, 80, true)[i%4])
		} else {
			probes = append(probes, all(p, n.server, 80, false, "server")[i%4])
		}
	}
	n.probeAll(probes...)
	for _, p := range crowd {
		n.removePod(p)
	}
	n.settle()
	if eps := n.endpoints(); len(eps) != 3 {
		t.Errorf("%d endpoints, want 3", len(eps))
	}
	steady.intact("while a crowd came and went", began)
	// Two for each pod's link, two for the steering port.
	n.eventually("pins of three pods and a port", func() bool { return len(n.linkPins()) == 2*3+2 })
}

// linkPins lists the pinned links.
func (n *node) linkPins() []string {
	var links []string
	for _, p := range n.pins() {
		if containsLine(p, "/links/") {
			links = append(links, p)
		}
	}
	return links
}

// TestLinkFlaps takes a pod's link down and up again.
func TestLinkFlaps(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{shape: netlab.Bridge})
	talk := n.talk(n.friend, n.server, 4, 80)
	steady := n.podStream(n.server, n.other, 4, 80)
	began := steady.mark()
	for range 3 {
		n.onLink(n.friend.Link(), netlink.LinkSetDown)
		n.onLink(n.friend.Link(), netlink.LinkSetUp)
	}
	talk.say("link up again")
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
	steady.intact("while another's link flapped", began)
}

// onLink does something to a link of the host.
func (n *node) onLink(name string, do func(netlink.Link) error) {
	n.Helper()
	must(n.T, n.net.Host().Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return do(link)
	}))
}

// drizzle has a pod send datagrams that nobody may have, often enough that no
// worker that hears it sleeps for long, until the test ends.
func (n *node) drizzle(from *pod, to netip.AddrPort) {
	n.Helper()
	var conn net.Conn
	must(n.T, from.Namespace().Do(func() (err error) {
		conn, err = net.Dial("udp", to.String())
		return err
	}))
	stop, stopped := make(chan struct{}), make(chan struct{})
	n.Cleanup(func() { close(stop); <-stopped; conn.Close() })
	go func() {
		defer close(stopped)
		for tick := time.Tick(2 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick:
				conn.Write([]byte("drizzle")) // refused, full: the next one
			}
		}
	}()
}

// TestSteeringPortLost deletes the steering port, and takes it down: the agent
// makes it anew, and what is established in the kernel doesn't notice.
func TestSteeringPortLost(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newPair(t, setup{change: func(c *control.Config) { c.Offload, c.Workers = offload, 2 }})
			talk := n.talk(n.friend, n.server, 4, 80)
			s := n.podStream(n.friend, n.server, 6, 80)
			began := s.mark()
			n.drizzle(n.friend, at(n.server.v4, 9))
			for _, port := range []string{"sluice0.0", "sluice1.1", "sluice1.0"} {
				n.onLink(port, netlink.LinkDel)
				n.eventually(port+" is there again", func() bool {
					return len(n.ownLinks()) == 4 && n.status().Ready
				})
				n.eventually("new flows pass", func() bool {
					r, err := n.friend.Namespace().ProbeTCP(t.Context(), at(n.friend.v4, n.port()), at(n.server.v4, 80))
					return err == nil && r.Passed
				})
				talk.say(port + " deleted")
			}
			for _, port := range []string{"sluice0.0", "sluice1.1"} {
				n.onLink(port, netlink.LinkSetDown)
				n.eventually(port+" is up again", func() bool {
					up := n.ownLinksThat(func(l netlink.Link) bool { return l.Attrs().OperState == netlink.OperUp })
					return len(up) == 4 && n.status().Ready
				})
			}
			n.onLink("sluice0.0", netlink.LinkSetDown)
			n.onLink("sluice0.0", netlink.LinkSetUp)
			n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
			if offload {
				s.intact("while steering ports went", began)
			} else {
				s.flows()
			}
		})
	}
}

// TestFoundLate has a pod whose addresses come up after it is known, where the node
// is told nothing of it, while other things change without a pause.
func TestFoundLate(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{})
	late, err := n.net.AddPod("x/late", []netip.Addr{netip.MustParseAddr("10.0.1.14")})
	must(t, err)
	const more = "10.0.9.9"
	n.write("late", "apiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: x}\nspec: {nodeName: node}\nstatus: {podIP: "+more+"}\n")
	n.eventually("the pod is pending", func() bool { return slices.Contains(n.status().Pending, "x/late") })
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				n.write("change", fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: change, namespace: x, labels: {i: i%d}}\nspec: {nodeName: other}\n", i))
			}
		}
	}()
	defer func() { close(stop); <-done }()
	time.Sleep(300 * time.Millisecond)
	must(t, late.Namespace().Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(more), Mask: net.CIDRMask(32, 32)}})
	}))
	n.eventually("the pod is found", func() bool { return len(n.endpoints()) == 4 })
}
