//go:build guest

// Bonds and VLAN devices are not to be had on every machine that runs tests.

package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/bench/netlab"
)

// enforced tries who may reach the server, from outside and from its own node.
func (a *away) enforced() {
	a.Helper()
	a.probeAll(append(append(fromAway(a.friendly, a.server, 80, true), fromAway(a.stranger, a.server, 80, false, "server")...),
		append(all(a.friend, a.server, 80, true), all(a.other, a.server, 80, false, "server")...)...)...)
}

// steered is how many packets workers have judged that came by an uplink.
func (a *away) steered(name string) (n uint64) {
	a.Helper()
	for _, u := range a.status().Uplinks {
		for _, q := range u.Queues {
			if u.Name == name {
				n += q.Packets
			}
		}
	}
	return n
}

// activeMember waits until the bond sends and receives by a member.
func (a *away) activeMember(name string) {
	a.Helper()
	a.eventually(name+" is the active member", func() (is bool) {
		var member int
		a.onLink(name, func(l netlink.Link) error { member = l.Attrs().Index; return nil })
		a.onLink("uplink", func(l netlink.Link) error { is = l.(*netlink.Bond).ActiveSlave == member; return nil })
		return is
	})
}

// TestUplinkBond names a bond and its members as uplinks. The bond is refused, the
// members enforce, whichever of them is in use.
func TestUplinkBond(t *testing.T) {
	t.Parallel()
	a := awayBy(t, setup{bond: []string{"m0", "m1"}}, "uplink", "m0", "m1")
	a.uplinksAre(map[string]string{"uplink": "it is a bond, which has no queues of its own: name its members (m0, m1)", "m0": "on", "m1": "on"})
	for _, n := range a.net.Config().NodeAddrs {
		a.serve(a.net.Host(), n, 22)
	}
	conn, err := dial(a.friendly.Namespace(), at(friendly4, a.port()), at(a.server.v4, 80))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	talk := &talk{a.node, conn}
	talk.say("connected")
	for turn, active := range []string{"m0", "m1", "m0"} {
		if turn > 0 { // pull the cable of the other, and put it back
			other := []string{"m0", "m1"}[turn-1]
			a.run(a.net.Router(), "ip", "link", "set", active+"p", "up")
			a.run(a.net.Router(), "ip", "link", "set", other+"p", "down")
		}
		a.activeMember(active)
		before := a.steered(active)
		a.enforced()
		a.probeAll(a.host(a.stranger)...)
		talk.say("by " + active)
		if a.steered(active) == before {
			t.Errorf("nothing of %s was judged before the stack", active)
		}
		a.uplinksAre(map[string]string{"m0": "on", "m1": "on"})
	}
	// A VLAN of the bond is one of its members' frames.
	a.run(a.net.Host(), "ip", "link", "add", "link", "uplink", "name", "uplink.100", "type", "vlan", "id", "100")
	a.uplinksAre(map[string]string{"m0": "it carries uplink.100", "m1": "it carries uplink.100"})
	a.enforced()
	talk.say("without uplinks")
	a.run(a.net.Host(), "ip", "link", "del", "uplink.100")
	a.uplinksAre(map[string]string{"m0": "on", "m1": "on"})
	// And one of a bridge is one of its ports'.
	a.run(a.net.Host(), "ip", "link", "add", "name", "br9", "type", "bridge", "vlan_filtering", "1")
	a.run(a.net.Host(), "ip", "link", "set", "m1", "nomaster") // which takes it down
	a.run(a.net.Host(), "ip", "link", "set", "m1", "master", "br9", "up")
	a.uplinksAre(map[string]string{"m0": "on", "m1": "it carries br9, which is a bridge with vlan_filtering"})
	a.run(a.net.Host(), "ip", "link", "set", "br9", "type", "bridge", "vlan_filtering", "0")
	a.uplinksAre(map[string]string{"m1": "on"})
	a.uplinksAre(map[string]string{"uplink": "(m0)"})
	a.enforced()
}

// addVLAN makes devices for one VLAN at both ends of the cable.
func (a *away) addVLAN() {
	a.Helper()
	for name, ns := range map[string]*netlab.Namespace{"uplink": a.net.Host(), "node": a.net.Router()} {
		a.run(ns, "ip", "link", "add", "link", name, "name", name+".100", "type", "vlan", "id", "100")
		a.run(ns, "ip", "link", "set", name+".100", "up")
	}
}

// routeBy has all between the pods and the world outside go by links of the host
// and of the router: the cable's own, or the VLAN's.
func (a *away) routeBy(host, router string) {
	a.Helper()
	mac := func(ns *netlab.Namespace, name string) (s string) {
		must(a.T, ns.Do(func() error {
			l, err := netlink.LinkByName(name)
			if err == nil {
				s = l.Attrs().HardwareAddr.String()
			}
			return err
		}))
		return s
	}
	hostMAC, routerMAC := mac(a.net.Host(), host), mac(a.net.Router(), router)
	for i, via := range []string{"169.254.254.1", "fe80::2"} {
		a.run(a.net.Host(), "ip", "neigh", "replace", via, "lladdr", routerMAC, "nud", "permanent", "dev", host)
		for _, e := range []*netlab.External{a.friendly, a.stranger} {
			a.run(a.net.Host(), "ip", "route", "replace", prefix(e.Addrs()[i]), "via", via, "dev", host, "onlink", "src", a.net.Config().NodeAddrs[i].String())
		}
		for _, p := range []*pod{a.server, a.friend, a.other} {
			addr := p.addr(4 + 2*i)
			a.run(a.net.Router(), "ip", "neigh", "replace", addr.String(), "lladdr", hostMAC, "nud", "permanent", "dev", router)
			a.run(a.net.Router(), "ip", "route", "replace", prefix(addr), "dev", router)
		}
	}
}

func prefix(a netip.Addr) string { return fmt.Sprintf("%v/%d", a, a.BitLen()) }

// TestUplinkVLAN names a VLAN device, and a link below one that hands tags over
// beside the frame. Both are refused, and the pods' links enforce on tagged
// frames.
func TestUplinkVLAN(t *testing.T) {
	t.Parallel()
	a := awayBy(t, setup{}, "uplink.100", "uplink")
	a.uplinksAre(map[string]string{"uplink.100": "no such link", "uplink": "on"})
	a.addVLAN()
	for _, strips := range []string{"on", "off"} { // a veth pair doesn't care
		a.run(a.net.Host(), "ethtool", "-K", "uplink", "rxvlan", strips)
		a.uplinksAre(map[string]string{
			"uplink.100": "it is a vlan, which has no driver of its own: name the NIC below it",
			"uplink":     "it carries uplink.100, and a veth pair hands tags over beside the frame",
		})
	}
	a.routeBy("uplink.100", "node.100")
	a.enforced()
	a.routeBy("uplink", "node")
	a.enforced()
	a.run(a.net.Host(), "ip", "link", "del", "uplink.100")
	a.uplinksAre(map[string]string{"uplink.100": "no such link", "uplink": "on"})
	a.enforced()
}

// TestUplinkTagged has a NIC that leaves tags in the frames: it is an uplink, and
// what is tagged passes to be judged at the pods' links.
func TestUplinkTagged(t *testing.T) {
	if os.Getenv(nicsVar) == "" {
		t.Skip("needs NICs")
	}
	a := newAway(t, setup{})
	a.addVLAN()
	before := a.steered("uplink")
	a.enforced()
	untagged := a.steered("uplink")
	if untagged == before {
		t.Error("nothing untagged was judged before the stack")
	}
	a.routeBy("uplink.100", "node.100")
	a.enforced()
	if n := a.steered("uplink"); n != untagged {
		t.Errorf("%d tagged frames were taken for untagged ones", n-untagged)
	}
	conn, err := dial(a.friendly.Namespace(), at(friendly4, a.port()), at(a.server.v4, 80))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	talk := &talk{a.node, conn}
	talk.say("tagged")
	a.allow("role: nobody")
	talk.cut("tightened")
	a.apply("server", letIn)
	talk.resumes("loosened")
	a.uplinkIs("on")
	a.routeBy("uplink", "node")
	a.enforced()
	if a.steered("uplink") == untagged {
		t.Error("nothing untagged was judged before the stack any more")
	}
}
