package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control"
)

// host is a machine beyond the uplink, at an address of each family, with echo
// servers and a record of what arrives.
type host struct {
	addrs [2]netip.Addr
	wires [2]*wire
}

// got counts what came to the host's port 80.
func (h *host) got() (count int) {
	for i, w := range h.wires {
		count += w.arrived(func(p gopacket.Packet) bool {
			if p.NetworkLayer() == nil || p.NetworkLayer().NetworkFlow().Dst().String() != h.addrs[i].String() {
				return false
			}
			tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
			udp, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			return tcp != nil && tcp.DstPort == 80 || udp != nil && udp.DstPort == 80
		})
	}
	return count
}

// partly is a node with a Service that a caged pod may reach some backends of,
// all of them elsewhere.
type partly struct {
	*pair
	caged              *pod
	good, bad, unknown *host
	vips               [2]string
}

const partlyPort = 30090 // on the node

func (n *node) outside(last int) *host {
	n.Helper()
	h := &host{}
	for i, a := range []string{fmt.Sprint("203.0.113.", last), fmt.Sprint("2001:db8::", last)} {
		ext, err := n.net.AddExternal(netip.MustParseAddr(a))
		must(n.T, err)
		n.serve(ext.Namespace(), ext.Addr(), 80)
		h.addrs[i], h.wires[i] = ext.Addr(), n.wire(ext.Namespace())
	}
	return h
}

func newPartly(t *testing.T, s setup) *partly {
	n := &partly{pair: newPair(t, s), vips: [2]string{"10.96.0.20", "fd00:96::20"}}
	n.caged = n.addPod("caged", 4, "cage: small")
	n.good, n.bad, n.unknown = n.outside(7), n.outside(8), n.outside(9)
	for name, h := range map[string]*host{"good": n.good, "bad": n.bad, "unknown": n.unknown} {
		n.elsewhere(name, h, "app: "+name)
	}
	n.cage("app: good")
	n.backends(n.good, n.bad)
	n.leads(n.good)
	n.settle()
	return n
}

// elsewhere writes a pod of another node.
func (n *node) elsewhere(name string, h *host, labels string) {
	n.Helper()
	n.write("pod-"+name, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: x, uid: %s, labels: {%s}}\nspec: {nodeName: elsewhere}\nstatus: {phase: Running, podIPs: [{ip: %s}, {ip: %q}]}\n",
		name, name, labels, h.addrs[0], h.addrs[1]))
}

func (n *partly) cage(labels string) {
	n.Helper()
	n.policy("cage", "podSelector: {matchLabels: {cage: small}}\npolicyTypes: [Egress]\negress:\n- to: [{podSelector: {matchLabels: {"+labels+"}}}]\n  ports: [{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]")
}

func (n *partly) backends(list ...*host) {
	n.Helper()
	var all []netip.Addr
	for _, h := range list {
		all = append(all, h.addrs[:]...)
	}
	n.service("partly", partlyPort, n.vips[:], all...)
}

// leads has the host translate the Service's addresses, and the node's port, to
// hosts by turns, and call them by its own address.
func (n *partly) leads(to ...*host) {
	n.Helper()
	var addrs [2][]netip.Addr
	for _, h := range to {
		for i := range addrs {
			addrs[i] = append(addrs[i], h.addrs[i])
		}
	}
	n.nat(addrs)
}

// nat is what kube-proxy writes in its nftables mode, but for the choice, which it
// makes at random.
func (n *partly) nat(to [2][]netip.Addr) {
	n.Helper()
	var ends, services string
	for i, family := range []string{"ip", "ip6"} {
		var choice []string
		for k, a := range to[i] {
			name := fmt.Sprintf("endpoint-%d-%d", i, k)
			ends += fmt.Sprintf("chain %s { meta l4proto { tcp, udp } dnat %s to %v; }\n", name, family, at(a, 80))
			choice = append(choice, fmt.Sprintf("%d : goto %s", k, name))
		}
		if len(choice) == 0 {
			continue
		}
		for dst, port := range map[string]int{n.vips[i]: servicePort, n.net.Config().NodeAddrs[i].String(): partlyPort} {
			services += fmt.Sprintf("%s daddr %s meta l4proto { tcp, udp } th dport %d numgen inc mod %d vmap { %s }\n",
				family, dst, port, len(choice), strings.Join(choice, ", "))
		}
	}
	path := filepath.Join(n.dir, ".nat")
	must(n.T, os.WriteFile(path, []byte("table inet nat {}\ndelete table inet nat\ntable inet nat {\n"+ends+"chain services {\n"+services+"}\n"+
		"chain prerouting { type nat hook prerouting priority dstnat; jump services; }\n"+
		"chain postrouting { type nat hook postrouting priority srcnat; oifname uplink masquerade; }\n}\n"), 0o644))
	n.run(n.net.Host(), "nft", "-f", path)
}

// calls probes the Service by all its addresses.
func (n *partly) calls(from *pod, pass bool, why ...string) (out []*probe) {
	for i := range n.vips {
		for dst, port := range map[string]uint16{n.vips[i]: servicePort, n.net.Config().NodeAddrs[i].String(): partlyPort} {
			for _, proto := range []string{"tcp", "udp"} {
				p := &probe{proto: proto, from: from.Namespace(), src: from.addr(4 + 2*i), dst: netip.MustParseAddr(dst), dport: port, pass: pass}
				if len(why) > 0 {
					p.reason, p.policy = "policy", why[0]
				}
				out = append(out, p)
			}
		}
	}
	return out
}

// tables are those of Sluice.
func (n *node) tables() string {
	n.Helper()
	var own []string
	for _, line := range strings.Split(n.run(n.net.Host(), "nft", "list", "tables"), "\n") {
		if strings.HasSuffix(line, " sluice") {
			own = append(own, line)
		}
	}
	return strings.Join(own, ", ")
}

const bothTables = "table ip sluice, table ip6 sluice"

// TestServicePartly calls a Service that leads to allowed and to denied backends,
// all on other nodes: what counts is where the host sends a connection.
func TestServicePartly(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPartly(t, s)
		// Two protocols and families, the Service's address and all of the node's.
		if s := n.status().Services; s.Guarded < 8 || s.Closed != 0 {
			t.Errorf("status: %+v, want 8 calls guarded or more", s)
		}
		n.probeAll(n.calls(n.caged, true)...)
		n.leads(n.bad)
		n.probeAll(n.calls(n.caged, false)...)
		if n.status().Drops["service-backend"] < 8 {
			t.Errorf("drops: %v", n.status().Drops)
		}
		// By turns. What is dropped leaves no trace in conntrack, so that a client
		// that tries again comes to another.
		n.leads(n.bad, n.good)
		var tcp []*probe
		for _, p := range n.calls(n.caged, true) {
			if p.proto == "tcp" {
				tcp = append(tcp, p)
			}
		}
		n.probeAll(tcp...)
		// One that the host knows before the agent does, be it allowed.
		n.leads(n.unknown)
		n.elsewhere("unknown", n.unknown, "app: good")
		n.settle()
		n.probeAll(n.calls(n.caged, false)...)
		if got := n.unknown.got(); got > 0 {
			t.Errorf("%d packets came to a backend that the agent did not know", got)
		}
		n.backends(n.good, n.bad, n.unknown)
		n.settle()
		n.probeAll(n.calls(n.caged, true)...)
		// Who is not caged may go anywhere.
		if got := n.bad.got(); got > 0 {
			t.Errorf("%d packets came to a denied backend", got)
		}
		n.leads(n.bad)
		n.probeAll(n.calls(n.friend, true)...)
		n.eventually("what came to the denied backend is recorded", func() bool { return n.bad.got() > 0 })
		// Nothing to choose any more: all denied, then all allowed.
		n.cage("app: nobody")
		n.settle()
		n.probeAll(n.calls(n.caged, false, "cage")...)
		if got := n.tables(); got != "" {
			t.Errorf("without a call to guard there is %s", got)
		}
		n.cage("app: good")
		n.settle()
		n.probeAll(n.calls(n.caged, false)...)
		if got := n.tables(); got != bothTables {
			t.Errorf("tables: %s", got)
		}
		n.elsewhere("bad", n.bad, "app: good")
		n.settle()
		n.probeAll(n.calls(n.caged, true)...)
		if got := n.tables(); got != "" {
			t.Errorf("without a call to guard there is %s", got)
		}
	})
}

// TestServicePartlyLives changes policies and backends under connections.
func TestServicePartlyLives(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newPartly(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			n.backends(n.good, n.bad, n.unknown)
			n.settle()
			vip := func(i int) netip.AddrPort { return at(netip.MustParseAddr(n.vips[i]), servicePort) }
			talk := n.talkTo(n.caged, vip(0))
			s := n.stream(n.caged.Namespace(), n.caged.v6, vip(1).Addr(), servicePort)
			s.flows()
			talk.say("while it is allowed")

			// The backend is denied, and another one allowed instead.
			n.elsewhere("good", n.good, "app: bad")
			n.elsewhere("unknown", n.unknown, "app: good")
			n.settle()
			talk.cut("the backend is denied")
			s.silent("the backend is denied")
			before := n.good.got()
			n.leads(n.unknown)
			n.probeAll(n.calls(n.caged, true)...)
			if got := n.good.got(); got != before {
				t.Errorf("%d packets came to a denied backend", got-before)
			}
			n.elsewhere("good", n.good, "app: good")
			n.settle()
			talk.resumes("the backend is allowed again")
			s.flows()

			// A backend that is about to end keeps what it has.
			n.backends(n.bad, n.unknown)
			n.write("draining", fmt.Sprintf("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: draining, namespace: x, labels: {kubernetes.io/service-name: partly}}\n"+
				"addressType: IPv4\nports: [{name: tcp, protocol: TCP, port: 80}]\nendpoints: [{addresses: [%q], conditions: {ready: false, serving: true, terminating: true}}]\n", n.good.addrs[0]))
			n.settle()
			talk.say("while it drains")

			// The agent dies: what was guarded is, and what is allowed goes on.
			n.signal(unix.SIGKILL)
			if offload {
				talk.say("without an agent")
			}
			if got := n.tables(); got != bothTables {
				t.Errorf("without an agent: %s", got)
			}
			n.start()
			talk.say("with the next agent")
			n.leads(n.bad)
			n.probeAll(n.calls(n.caged, false)...)
			if got := n.bad.got(); got > 0 {
				t.Errorf("%d packets came to a denied backend", got)
			}
		})
	}
}

// A Service's flow outlives what it leads to, if its socket does. What it may not
// reach any more is cut, though no rule has changed.
func TestServiceLeadsElsewhere(t *testing.T) {
	t.Parallel()
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			n := newPartly(t, setup{change: func(c *control.Config) { c.Offload = offload }})
			n.backends(n.good)
			n.settle()
			s := n.stream(n.caged.Namespace(), n.caged.v4, netip.MustParseAddr(n.vips[0]), servicePort)
			s.flows()
			if got := n.tables(); got != "" {
				t.Errorf("without a call to guard there is %s", got)
			}
			n.backends(n.bad)
			n.settle()
			s.silent("it leads to a denied backend")
			n.backends(n.good)
			n.settle()
			s.flows()
		})
	}
}

// TestServiceOnNode has one backend at the node's own address, where packets are
// not forwarded: the host's network, as the API server's.
func TestServiceOnNode(t *testing.T) {
	t.Parallel()
	n := newPartly(t, setup{})
	own := &host{addrs: [2]netip.Addr(n.net.Config().NodeAddrs)}
	for _, a := range own.addrs {
		n.serve(n.net.Host(), a, 80)
	}
	n.backends(n.good, own)
	n.leads(own)
	n.settle()
	before := n.status().Drops["service-backend"]
	n.probeAll(n.calls(n.caged, false)...)
	if n.status().Drops["service-backend"] == before {
		t.Error("no drop is counted")
	}
	n.probeAll(n.calls(n.friend, true)...)
	n.policy("cage", fmt.Sprintf("podSelector: {matchLabels: {cage: small}}\npolicyTypes: [Egress]\negress:\n- to: [{ipBlock: {cidr: %v/32}}, {ipBlock: {cidr: %v/128}}]", own.addrs[0], own.addrs[1]))
	n.settle()
	n.probeAll(n.calls(n.caged, true)...)
	n.leads(n.good)
	n.probeAll(n.calls(n.caged, false)...)
	if got := n.good.got(); got > 0 {
		t.Errorf("%d packets came to a denied backend", got)
	}
}

// TestGuardGone takes the tables away, and cleans up.
func TestGuardGone(t *testing.T) {
	t.Parallel()
	n := newPartly(t, setup{})
	n.run(n.net.Host(), "nft", "flush", "ruleset")
	n.eventually("the tables are back", func() bool { return n.tables() == bothTables })
	n.leads(n.bad)
	n.probeAll(n.calls(n.caged, false)...)
	if got := n.bad.got(); got > 0 {
		t.Errorf("%d packets came to a denied backend", got)
	}
	n.signal(unix.SIGTERM)
	if got := n.tables(); got != bothTables {
		t.Errorf("onExit keep left %s", got)
	}
	n.cleanup()
	if got := n.tables(); got != "" {
		t.Errorf("the clean-up left %s", got)
	}
	n.cfg.OnExit = control.ExitCleanup
	n.start()
	if got := n.tables(); got != bothTables {
		t.Errorf("the next agent has %s", got)
	}
	n.signal(unix.SIGTERM)
	if got := n.tables(); got != "" {
		t.Errorf("onExit cleanup left %s", got)
	}
}

// TestServiceOthersProgram puts a program beside Sluice's where the pod's packets
// enter the host. It might translate addresses, and netfilter never know: such
// calls stay closed.
func TestServiceOthersProgram(t *testing.T) {
	t.Parallel()
	n := newPartly(t, setup{})
	calls := n.status().Services.Guarded
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "somebodys", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
	must(t, err)
	defer prog.Close()
	var l link.Link
	must(t, n.net.Host().Do(func() error {
		dev, err := netlink.LinkByName(n.caged.Link())
		if err != nil {
			return err
		}
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Attach: ebpf.AttachTCXIngress, Interface: dev.Attrs().Index})
		return err
	}))
	n.eventually("the calls are closed", func() bool {
		s := n.status().Services
		return s.Guarded == 0 && s.Closed == calls && strings.Contains(s.Reason, "somebodys")
	})
	n.probeAll(n.calls(n.caged, false, "cage")...)
	must(t, l.Close())
	n.eventually("the calls are guarded", func() bool { return n.status().Services.Guarded == calls })
	n.probeAll(n.calls(n.caged, true)...)
}

// TestGuardRefused has somebody else own a table of the name: the kernel lets
// nobody touch it but its owner. The calls are closed until it is gone.
func TestGuardRefused(t *testing.T) {
	t.Parallel()
	n := newPartly(t, setup{})
	calls := n.status().Services.Guarded
	n.signal(unix.SIGTERM)
	n.cleanup()
	owner := exec.Command("nft", "-i")
	stdin, err := owner.StdinPipe()
	must(t, err)
	must(t, n.net.Host().Start(owner))
	t.Cleanup(func() { stdin.Close(); _ = owner.Wait() })
	_, err = stdin.Write([]byte("add table ip sluice { flags owner; }\n"))
	must(t, err)
	n.eventually("the table is there", func() bool { return n.tables() == "table ip sluice" })
	n.start()
	if s := n.status().Services; s.Guarded != 0 || s.Closed != calls || s.Reason == "" {
		t.Errorf("status: %+v, want %d calls closed", s, calls)
	}
	n.probeAll(n.calls(n.caged, false, "cage")...)
	n.probeAll(n.calls(n.friend, true)...)
	stdin.Close()
	n.eventually("the calls are guarded", func() bool { return n.status().Services.Guarded == calls })
	n.probeAll(n.calls(n.caged, true)...)
	n.leads(n.bad)
	n.probeAll(n.calls(n.caged, false)...)
	if got := n.bad.got(); got > 0 {
		t.Errorf("%d packets came to a denied backend", got)
	}
}
