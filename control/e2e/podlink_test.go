package e2e_test

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control"
)

// xdpOn reports whether an XDP program is attached to a pod's host-side link.
func (n *node) xdpOn(p *pod) (on bool) {
	n.Helper()
	n.onLink(p.Link(), func(l netlink.Link) error {
		x := l.Attrs().Xdp
		on = x != nil && x.Attached
		return nil
	})
	return on
}

func (n *node) podLinks() int {
	n.Helper()
	return n.status().Workers[0].PodLinks
}

// TestPodLinks follows pods that are heard on their own links: as many as there
// are frames for, in turns, until the agent goes.
func TestPodLinks(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{change: func(c *control.Config) {
		c.Offload, c.PodLinks = false, 2
	}})
	open := append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)
	p.probeAll(open...)
	p.eventually("friend and server are heard on their links", func() bool {
		p.probeAll(all(p.friend, p.server, 80, true)...)
		return p.podLinks() == 2 && p.xdpOn(p.friend) && p.xdpOn(p.server) && !p.xdpOn(p.other)
	})
	p.probeAll(open...)

	// While these two are silent, the third one talks: to nobody who answers.
	p.eventually("another has taken the place of one that is silent", func() bool {
		p.probeAll(all(p.other, p.server, 80, false, "server")...)
		return p.xdpOn(p.other) && p.podLinks() == 2
	})
	p.probeAll(open...)

	// A link that goes takes its socket along, and no other.
	p.removePod(p.other)
	p.eventually("one is heard", func() bool {
		p.probeAll(all(p.friend, p.server, 80, true)...)
		return p.podLinks() <= 2
	})
	s := p.podStream(p.friend, p.server, 4, 80)
	began := s.mark()
	s.after(200)
	s.intact("on the pods' links", began)

	// The program outlives the agent and lets all pass on, to be dropped.
	p.eventually("friend is heard", func() bool { return p.xdpOn(p.friend) })
	p.signal(unix.SIGKILL)
	if !p.xdpOn(p.friend) {
		t.Error("the program went with the agent")
	}
	p.probeAll(all(p.friend, p.server, 80, false)[:2]...)
	p.cfg.Offload = true
	p.start()
	if p.xdpOn(p.friend) || p.xdpOn(p.server) {
		t.Error("a successor with offload left the program there")
	}
	p.probeAll(all(p.friend, p.server, 80, true)...)
}
