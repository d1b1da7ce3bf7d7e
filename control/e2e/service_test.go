package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
)

// serviceNode is a node with Services, the translation that kube-proxy would make
// of them, and a pod whose egress policy names the pods behind some.
type serviceNode struct {
	*pair
	caged       *pod
	far, beyond *netlab.External // pod of another node, and no pod
}

const servicePort, nodePort = 800, 30080

// service writes a Service and its EndpointSlices, one a family.
func (n *node) service(name string, nodePort int, vips []string, backends ...netip.Addr) {
	n.Helper()
	ports := ""
	for _, proto := range []string{"TCP", "UDP"} {
		at := ""
		if nodePort != 0 {
			at = fmt.Sprintf(", nodePort: %d", nodePort)
		}
		ports += fmt.Sprintf("  - {name: %s, protocol: %s, port: %d%s}\n", strings.ToLower(proto), proto, servicePort, at)
	}
	doc := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: x}\nspec:\n  clusterIP: %q\n  clusterIPs: [\"%s\"]\n  ports:\n%s",
		name, vips[0], strings.Join(vips, `", "`), ports)
	for i, family := range []string{"IPv4", "IPv6"} {
		var ends []string
		for _, b := range backends {
			if b.Is6() == (i == 1) {
				ends = append(ends, fmt.Sprintf("{addresses: [%q], conditions: {ready: true}}", b))
			}
		}
		doc += fmt.Sprintf("---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s-%d, namespace: x, labels: {kubernetes.io/service-name: %s}}\n"+
			"addressType: %s\nports: [{name: tcp, protocol: TCP, port: 80}, {name: udp, protocol: UDP, port: 80}]\nendpoints: [%s]\n",
			name, i, name, family, strings.Join(ends, ", "))
	}
	n.write("service-"+name, doc)
}

func serviceVIP(i int) string { return fmt.Sprintf("10.96.0.%d", i) }

// newServices builds the node. Service i is at serviceVIP(i); what to says where
// the host sends connections to it.
func newServices(t *testing.T, s setup) *serviceNode {
	n := &serviceNode{pair: newPair(t, s)}
	n.caged = n.addPod("caged", 4, "cage: small")
	var err error
	n.far, err = n.net.AddExternal(netip.MustParseAddr("203.0.113.7"))
	must(t, err)
	n.beyond, err = n.net.AddExternal(netip.MustParseAddr("203.0.113.8"))
	must(t, err)
	n.serve(n.far.Namespace(), n.far.Addr(), 80)
	n.serve(n.beyond.Namespace(), n.beyond.Addr(), 80)
	n.write("pod-far", "apiVersion: v1\nkind: Pod\nmetadata: {name: far, namespace: x, uid: far, labels: {app: far}}\nspec: {nodeName: elsewhere}\nstatus: {phase: Running, podIPs: [{ip: 203.0.113.7}]}\n")
	n.cage("")
	n.policy("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress, Egress]\ningress:\n- from: [{podSelector: {}}]")

	server, other, far, beyond := n.server.v4, n.other.v4, n.far.Addr(), n.beyond.Addr()
	to := []netip.Addr{{}, server, other, far, beyond, far, server, other}
	n.service("server", nodePort, []string{serviceVIP(1), vip6}, server, n.server.v6)
	n.service("other", nodePort+1, []string{serviceVIP(2)}, other)
	n.service("far", 0, []string{serviceVIP(3)}, far)
	n.service("beyond", 0, []string{serviceVIP(4)}, beyond)
	n.service("far-and-beyond", 0, []string{serviceVIP(5)}, far, beyond)
	n.service("server-or-other", 0, []string{serviceVIP(6)}, server, other)
	n.service("other-or-server", 0, []string{serviceVIP(7)}, server, other)
	host := n.net.Config().NodeAddrs
	rules := fmt.Sprintf("ip daddr %s meta l4proto { tcp, udp } th dport %d dnat ip to %s:80\n", host[0], nodePort, server) +
		fmt.Sprintf("ip6 daddr %s meta l4proto { tcp, udp } th dport %d dnat ip6 to [%s]:80\n", host[1], nodePort, n.server.v6) +
		fmt.Sprintf("ip daddr %s meta l4proto { tcp, udp } th dport %d dnat ip to %s:80\n", host[0], nodePort+1, other) +
		fmt.Sprintf("ip6 daddr %s meta l4proto { tcp, udp } th dport %d dnat ip6 to [%s]:80\n", vip6, servicePort, n.server.v6)
	for i := 1; i < len(to); i++ {
		rules += fmt.Sprintf("ip daddr %s meta l4proto { tcp, udp } th dport %d dnat ip to %s:80\n", serviceVIP(i), servicePort, to[i])
	}
	// Whoever calls itself is masqueraded, as kube-proxy does it.
	path := filepath.Join(n.dir, ".nat")
	must(t, os.WriteFile(path, []byte("table inet nat {\nchain services {\n"+rules+"}\n"+
		"chain prerouting { type nat hook prerouting priority dstnat; jump services; }\n"+
		"chain output { type nat hook output priority -100; jump services; }\n"+
		fmt.Sprintf("chain postrouting { type nat hook postrouting priority srcnat; ip saddr %s ip daddr %s masquerade; }\n}\n", server, server)), 0o644))
	n.run(n.net.Host(), "nft", "-f", path)
	n.settle()
	return n
}

// cage lets the caged pod reach servers and what is called far, and more.
func (n *serviceNode) cage(more string) {
	n.policy("cage", "podSelector: {matchLabels: {cage: small}}\npolicyTypes: [Egress]\negress:\n"+
		"- to: [{podSelector: {matchLabels: {app: server}}}, {podSelector: {matchLabels: {app: far}}}]\n"+
		"  ports: [{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]\n"+more)
}

// call is a probe of a Service; policy, if not empty, is who denies it.
func (n *serviceNode) call(from *pod, dst string, port uint16, pass bool, policy string) []*probe {
	var out []*probe
	a := netip.MustParseAddr(dst)
	src := from.v4
	if a.Is6() {
		src = from.v6
	}
	for _, proto := range []string{"tcp", "udp"} {
		p := &probe{proto: proto, from: from.Namespace(), src: src, dst: a, dport: port, pass: pass}
		if policy != "" {
			p.reason, p.policy = "policy", policy
		}
		out = append(out, p)
	}
	return out
}

// TestServiceEgress calls Services from a pod that may reach only some of the
// pods behind them: what counts is where a connection goes.
func TestServiceEgress(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newServices(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			host := n.net.Config().NodeAddrs
			try := func(what string, beyond bool) {
				t.Helper()
				why := "cage"
				if beyond {
					why = ""
				}
				var probes []*probe
				add := func(p []*probe) { probes = append(probes, p...) }
				add(n.call(n.caged, serviceVIP(1), servicePort, true, ""))
				add(n.call(n.caged, vip6, servicePort, true, ""))
				add(n.call(n.caged, serviceVIP(2), servicePort, false, "cage"))
				add(n.call(n.caged, serviceVIP(3), servicePort, true, ""))
				add(n.call(n.caged, serviceVIP(4), servicePort, beyond, why))
				// One that may go where it is not allowed to, beyond this node, and doesn't.
				add(n.call(n.caged, serviceVIP(5), servicePort, true, ""))
				// The same on this node: it depends on where it goes.
				add(n.call(n.caged, serviceVIP(6), servicePort, true, ""))
				seven := n.call(n.caged, serviceVIP(7), servicePort, false, "")
				add(seven)
				// The node's ports.
				add(n.call(n.caged, host[0].String(), nodePort, true, ""))
				add(n.call(n.caged, host[1].String(), nodePort, true, ""))
				add(n.call(n.caged, host[0].String(), nodePort+1, false, "cage"))
				// No Service's port.
				add(n.call(n.caged, serviceVIP(1), servicePort+1, false, "cage"))
				add(n.call(n.caged, host[0].String(), nodePort+2, false, "cage"))
				// Who is not caged.
				add(n.call(n.friend, serviceVIP(2), servicePort, true, ""))
				add(n.call(n.friend, serviceVIP(4), servicePort, true, ""))
				// Itself, though its own policy lets it out nowhere.
				add(n.call(n.server, serviceVIP(1), servicePort, true, ""))
				add(n.call(n.server, serviceVIP(3), servicePort, false, "server"))
				n.probeAll(probes...)
				for _, p := range seven {
					// Told at the hook of the pod where it went.
					p.dst, p.dport, p.reason, p.policy = n.other.v4, 80, "policy", "cage"
					n.expectDenied(p)
				}
				if t.Failed() {
					t.Fatal("after: " + what)
				}
			}
			try("start", false)
			n.cage("- to: [{ipBlock: {cidr: 203.0.113.8/32}}]\n")
			n.settle()
			try("opened what is beyond", true)
			talk := n.talkTo(n.caged, netip.AddrPortFrom(netip.MustParseAddr(serviceVIP(4)), servicePort))
			talk.say("beyond")
			n.cage("")
			n.settle()
			talk.cut("closed it again")
			try("closed it again", false)
			// A Service that leads elsewhere from now on.
			n.service("other", nodePort+1, []string{serviceVIP(2)}, n.server.v4)
			n.settle()
			n.eventually("another backend", func() bool {
				r, err := n.caged.Namespace().ProbeTCP(n.Context(), netip.AddrPortFrom(n.caged.v4, n.port()),
					netip.AddrPortFrom(netip.MustParseAddr(serviceVIP(2)), servicePort))
				// The host still leads to the other pod, whose hook denies it now.
				return err == nil && !r.Passed
			})
		})
	}
}

// TestNodePort comes from outside through the node's port: the pod's own policy
// judges who it is.
func TestNodePort(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newServices(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			host := n.net.Config().NodeAddrs[0]
			outside := func(pass bool) []*probe {
				var out []*probe
				for _, proto := range []string{"tcp", "udp"} {
					out = append(out, &probe{proto: proto, from: n.beyond.Namespace(), src: n.beyond.Addr(), dst: host, dport: nodePort, pass: pass})
				}
				return out
			}
			try := func(pass bool) {
				t.Helper()
				probes := outside(pass)
				n.probeAll(probes...)
				for _, p := range probes {
					if !pass {
						p.dst, p.dport, p.reason, p.policy = n.server.v4, 80, "policy", "server"
						n.expectDenied(p)
					}
				}
			}
			try(false)
			n.apply("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]\ningress:\n- from: [{ipBlock: {cidr: 203.0.113.8/32}}]")
			try(true)
			n.apply("server", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Ingress]")
			try(false)
			// With the client's address translated away, it is the node that calls.
			n.run(n.net.Host(), "nft", "add rule inet nat postrouting ip daddr "+n.server.v4.String()+" ip saddr 203.0.113.8 masquerade")
			n.probeAll(outside(true)...)
		})
	}
}
