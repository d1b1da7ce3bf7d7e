package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
)

// A service as kube-proxy would make it: an address that nobody has,
// translated to the server; and masquerade towards the world outside.
const (
	vip4 = "10.96.0.1"
	vip6 = "fd00:96::1"

	natRules = `
table inet nat {
	chain services {
		ip daddr ` + vip4 + ` meta l4proto { tcp, udp } th dport 800 dnat ip to 10.0.1.11:80
		ip6 daddr ` + vip6 + ` meta l4proto { tcp, udp } th dport 800 dnat ip6 to [fd00:1::11]:80
	}
	chain prerouting { type nat hook prerouting priority dstnat; jump services; }
	chain output { type nat hook output priority -100; jump services; }
	chain postrouting { type nat hook postrouting priority srcnat; oifname "uplink" masquerade; }
}
`
)

func (n *node) translate() {
	n.Helper()
	path := filepath.Join(n.dir, ".nat") // hidden from the agent
	must(n.T, os.WriteFile(path, []byte(natRules), 0o644))
	n.run(n.net.Host(), "nft", "-f", path)
}

// TestService reaches a server through its service's address: the translation
// works both ways, and the server's own policy decides.
func TestService(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newPair(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			n.translate()
			caged := n.addPod("caged", 4, "role: friend, cage: small")
			n.apply("cage", "podSelector: {matchLabels: {cage: small}}\npolicyTypes: [Egress]\negress:\n"+
				"- to: [{podSelector: {matchLabels: {app: server}}}]")
			ext, err := n.net.AddExternal(netip.MustParseAddr("203.0.113.7"))
			must(t, err)
			n.serve(ext.Namespace(), ext.Addr(), 80)
			var probes []*probe
			for i, vip := range []netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)} {
				family := 4 + 2*i
				for _, proto := range []string{"tcp", "udp"} {
					probes = append(probes,
						// The server lets its friend in, wherever that thinks it goes.
						&probe{proto: proto, from: n.friend.Namespace(), src: n.friend.addr(family), dst: vip, dport: 800, pass: true},
						&probe{proto: proto, from: n.other.Namespace(), src: n.other.addr(family), dst: vip, dport: 800},
						// An address that nobody knows is not the server.
						&probe{proto: proto, from: caged.Namespace(), src: caged.addr(family), dst: vip, dport: 800, reason: "policy", policy: "cage"},
						// The node itself, through its own translation.
						&probe{proto: proto, from: n.net.Host(), src: n.net.Config().NodeAddrs[i], dst: vip, dport: 800, pass: true},
						// The masquerade.
						&probe{proto: proto, from: n.friend.Namespace(), src: n.friend.v4, dst: ext.Addr(), dport: 80, pass: true})
				}
			}
			probes = append(probes, all(n.friend, n.server, 80, true)...)
			n.probeAll(probes...)
			for _, p := range probes[:10] {
				if p.from != n.other.Namespace() {
					continue
				}
				p.dst, p.dport, p.reason, p.policy = n.server.v4, 80, "policy", "server"
				if p.src.Is6() {
					p.dst = n.server.v6
				}
				n.expectDenied(p)
			}

			// A connection that lives, through a change of policy and back.
			talk := n.talkTo(n.friend, at(netip.MustParseAddr(vip4), 800))
			s := n.stream(n.friend.Namespace(), n.friend.v6, netip.MustParseAddr(vip6), 800)
			s.flows()
			began := s.mark()
			for range 50 {
				talk.say("through the service")
			}
			s.after(50)
			s.intact("through the service", began)
			n.allow("role: nobody")
			talk.cut("tightened")
			s.silent("tightened")
			n.allow("role: friend")
			talk.resumes("loosened")
			s.flows()
		})
	}
}

// TestServiceSpeaksFirst has the backend of a Service go on when the agent has lost the
// flow: what it says is translated back, at once if the Service is known, and else once
// the client has spoken.
func TestServiceSpeaksFirst(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		speaker := n.addPod("speaker", 5, "app: speaker")
		path := filepath.Join(n.dir, ".nat")
		must(t, os.WriteFile(path, fmt.Appendf(nil, `table inet nat {
			chain services {
				type nat hook prerouting priority dstnat;
				ip daddr %s udp dport 800 dnat ip to %s:80
				ip6 daddr %s udp dport 800 dnat ip6 to [%s]:80
			}
		}`, vip4, speaker.v4, vip6, speaker.v6), 0o644))
		n.run(n.net.Host(), "nft", "-f", path)
		for _, known := range []bool{false, true} {
			if known {
				n.service("speaker", 0, []string{vip4, vip6}, speaker.v4, speaker.v6)
			}
			n.settle()
			for i, vip := range []string{vip4, vip6} {
				client := n.udp(n.friend, at(netip.MustParseAddr(vip), 800))
				var server *net.UDPConn
				must(t, speaker.Namespace().Do(func() (err error) {
					server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at(speaker.addr(4+2*i), 80)))
					return err
				}))
				t.Cleanup(func() { server.Close() })
				var from netip.AddrPort
				call := func() {
					n.eventually("call arrives", func() bool {
						_, _ = client.Write([]byte("call"))
						_ = server.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
						var err error
						_, from, err = server.ReadFromUDPAddrPort(make([]byte, 8))
						return err == nil
					})
				}
				speak := func() bool {
					_, _ = server.WriteToUDPAddrPort([]byte("news"), from)
					_ = client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					_, err := client.Read(make([]byte, 8))
					return err == nil
				}
				call()
				n.eventually("answer arrives", speak)
				n.signal(unix.SIGTERM)
				n.cleanup()
				n.start()
				if !known {
					speak()
					call()
				}
				n.eventually("the backend is heard", speak)
				server.Close()
			}
		}
	})
}

// TestMasquerade opens connections to the world outside, which sees the node.
func TestMasquerade(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		n.translate()
		ext, err := n.net.AddExternal(netip.MustParseAddr("203.0.113.7"))
		must(t, err)
		n.serve(ext.Namespace(), ext.Addr(), 80)
		talk := n.talkTo(n.server, at(ext.Addr(), 80)) // isolated, but may call
		for range 50 {
			talk.say("out and back")
		}
		stream := n.stream(n.friend.Namespace(), n.friend.v4, ext.Addr(), 80)
		stream.flows()
		from := stream.mark()
		stream.after(50)
		stream.intact("out and back", from)
	})
}

// TestReversePath sees that a host that checks where packets come from takes
// those that come back from a worker.
func TestReversePath(t *testing.T) {
	t.Parallel()
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		for _, strict := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", shape, strict), func(t *testing.T) {
				t.Parallel()
				n := newPair(t, setup{shape: shape, change: func(c *control.Config) { c.Offload = strict == 2 }})
				must(t, n.net.Host().Do(func() error {
					files, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
					for _, f := range files {
						if err == nil {
							err = os.WriteFile(f, fmt.Append(nil, strict), 0o644)
						}
					}
					return err
				}))
				ext, err := n.net.AddExternal(netip.MustParseAddr("203.0.113.7"))
				must(t, err)
				n.serve(ext.Namespace(), ext.Addr(), 80)
				n.probeAll(append(all(n.friend, n.server, 80, true),
					&probe{proto: "tcp", from: n.server.Namespace(), src: n.server.v4, dst: ext.Addr(), dport: 80, pass: true},
					&probe{proto: "udp", from: ext.Namespace(), src: ext.Addr(), dst: n.other.v4, dport: 80, pass: true},
					&probe{proto: "tcp", from: n.net.Host(), src: n.net.Config().NodeAddrs[0], dst: n.server.v4, dport: 80, pass: true})...)
			})
		}
	}
}
