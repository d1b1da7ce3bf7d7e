package e2e_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
)

// stall is a folder of sandboxes in which a search for pods' links gets stuck, at
// a FIFO that nobody writes. It is the last folder that an agent looks into.
type stall struct {
	*pair
	dir string
}

func newStall(t *testing.T, clsact bool) *stall {
	t.Helper()
	needPriv(t)
	s := &stall{dir: t.TempDir()}
	s.pair = newPair(t, setup{change: func(c *control.Config) {
		c.NetNS, c.Clsact = []string{netlab.RunDir, s.dir}, clsact
	}})
	return s
}

func (s *stall) fifo() string { return filepath.Join(s.dir, "sandbox") }

// restart has another agent come, whose searches get stuck, and waits until it
// has published rules all the same.
func (s *stall) restart(meanwhile func()) {
	s.Helper()
	s.signal(unix.SIGKILL)
	_ = os.Remove(s.fifo()) // of the agent before
	must(s.T, unix.Mkfifo(s.fifo(), 0o600))
	if meanwhile != nil {
		meanwhile()
	}
	s.launch()
	s.eventually("rules in force", func() bool {
		now, err := s.api.Status(s.Context())
		return err == nil && now.Generation > 0
	})
}

// search lets a search go on that has been stuck until now, and waits for what
// comes of it.
func (s *stall) search(becomes string, holds func() bool) {
	s.Helper()
	s.eventually("a search is stuck", func() bool {
		fd, err := unix.Open(s.fifo(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENXIO) {
			return false
		}
		must(s.T, errors.Join(err, os.Remove(s.fifo()), unix.Close(fd)))
		return true
	})
	s.eventually(becomes, holds)
}

// link returns the link of the endpoint that a pod is, "" if it is none.
func (s *stall) link(pod string) string {
	s.Helper()
	for _, e := range s.endpoints() {
		if e.Pod == pod {
			return e.Link
		}
	}
	return ""
}

// TestRecall restarts the agent while the search for links takes for ever. Pods
// whose links an earlier agent had found are served nevertheless, new flows and
// old ones, whether or not a plugin has told of others.
func TestRecall(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{false, true} {
		name := "none told, clsact"
		if told {
			name = "some told"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStall(t, !told)
			if told {
				s.tell(s.other)
			}
			talk := s.talk(s.friend, s.server, 4, 80)
			s4, s6 := s.podStream(s.friend, s.server, 4, 80), s.podStream(s.server, s.other, 6, 80)
			began4, began6 := s4.mark(), s6.mark()
			probes := append(all(s.friend, s.server, 80, true), all(s.other, s.server, 80, false, "server")...)
			probes = append(probes, all(s.friend, s.other, 80, true)...)
			for range 2 { // the second agent knows it from one that hasn't found anything itself
				s.restart(nil)
				s.probeAll(probes...)
				talk.say("while the search is stuck")
			}
			s.search("all endpoints", func() bool { return len(s.endpoints()) == 3 })
			s.settle()
			s.probeAll(probes...)
			talk.say("after the search")
			s4.intact("over the restarts", began4)
			s6.intact("over the restarts", began6)
		})
	}
}

// TestRecallSuccessor gives the address of a pod to another one while no agent
// runs, and the old one's sandbox is still up: the new one's rights are not the
// old one's.
func TestRecallSuccessor(t *testing.T) {
	t.Parallel()
	s := newStall(t, false)
	s.tell(s.server)
	s.restart(func() {
		s.other.labels = "role: friend"
		s.write("pod-other", "apiVersion: v1\nkind: Pod\nmetadata: {name: other, namespace: x, uid: another, labels: {role: friend}}\n"+
			"spec: {nodeName: node}\nstatus: {phase: Running, podIPs: [{ip: "+s.other.v4.String()+"}, {ip: '"+s.other.v6.String()+"'}]}\n")
	})
	s.probeAll(append(all(s.friend, s.server, 80, true), all(s.other, s.server, 80, false)...)...)
	if at := s.link("other"); at != "" {
		t.Errorf("the successor has the link %s, which nobody has found", at)
	}
	s.search("the successor is found", func() bool { return s.link("other") != "" })
	s.settle()
	s.probeAll(all(s.other, s.server, 80, true)...)
}

// TestRecallMoved moves a pod to another link while no agent runs: where it was
// is good until the search has found it, and not longer.
func TestRecallMoved(t *testing.T) {
	t.Parallel()
	s := newStall(t, false)
	was := s.link("friend")
	s.restart(func() {
		s.remove("pod-other")
		s.moveTo(s.other, s.friend)
	})
	if at := s.link("friend"); at != was {
		t.Errorf("friend is at %q before the search, was at %s", at, was)
	}
	s.search("the new link is found", func() bool { return s.link("friend") == s.other.Link() })
	s.settle()
	for _, p := range all(s.friend, s.server, 80, true) {
		p.from = s.other.Namespace()
		s.probeAll(p)
	}
}

// moveTo takes the addresses of a pod into the sandbox of another, and its routes
// to the link of that.
func (s *stall) moveTo(to, p *pod) {
	s.Helper()
	for _, a := range []netip.Addr{p.v4, p.v6} {
		ip := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
		change := func(do func(netlink.Link, *netlink.Addr) error) func() error {
			return func() error {
				eth0, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return do(eth0, &netlink.Addr{IPNet: ip, Flags: unix.IFA_F_NODAD})
			}
		}
		must(s.T, p.Namespace().Do(change(netlink.AddrDel)))
		must(s.T, to.Namespace().Do(change(netlink.AddrAdd)))
		must(s.T, s.net.Host().Do(func() error {
			l, err := netlink.LinkByName(to.Link())
			if err != nil {
				return err
			}
			old, err := netlink.LinkByName(p.Link())
			if err != nil {
				return err
			}
			routes, err := netlink.RouteList(old, netlink.FAMILY_ALL)
			for _, r := range routes {
				if r.Dst != nil && r.Dst.IP.Equal(ip.IP) {
					err = errors.Join(err, netlink.RouteDel(&r))
					r.LinkIndex = l.Attrs().Index
					err = errors.Join(err, netlink.RouteAdd(&r))
				}
			}
			return err
		}))
	}
}
