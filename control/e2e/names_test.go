package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
)

// names is a node with a resolver in a pod, a client that may ask it and reach
// what some names resolve to, and the world outside.
type namesNode struct {
	*node
	dns, client *pod
	server      *resolver
	world       *netlab.External
	v4, v6      []netip.Addr // of the world
}

// worldAddrs is how many addresses of each family the world has.
const worldAddrs = 64

const ciliumNames = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: x}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: dns}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*.test"}, {matchPattern: "*.any.test"}]}
  - toFQDNs: [{matchName: web.test}, {matchPattern: "*.any.test"}, {matchName: foreign.example}]
    toPorts: [{ports: [{port: "80", protocol: ANY}]}]
`

const clusterNames = `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}}
  egress:
  - action: Accept
    to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: dns}}}}]
  - action: Accept
    to: [{domainNames: [web.test, "*.any.test"]}]
  - action: Deny
    to: [{networks: ["0.0.0.0/0", "::/0"]}]
`

func newNames(t *testing.T, s setup, policy string) *namesNode {
	t.Helper()
	before := s.change
	s.change = func(c *control.Config) {
		// However slow the machine is, the rules are there before the answer.
		c.Names.MaxHold, c.Names.MinTTL = control.Duration(patience), control.Duration(time.Hour)
		if before != nil {
			before(c)
		}
	}
	n := &namesNode{node: newNode(t, s)}
	n.dns = n.addPod("dns", 1, "app: dns")
	n.client = n.addPod("client", 2, "app: client")
	for i := range worldAddrs {
		n.v4 = append(n.v4, netip.AddrFrom4([4]byte{203, 0, 113, byte(10 + i)}))
		n.v6 = append(n.v6, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 0x10+i)))
	}
	var err error
	n.world, err = n.net.AddExternal(append(append([]netip.Addr{}, n.v4...), n.v6...)...)
	must(t, err)
	for i := range worldAddrs {
		n.serve(n.world.Namespace(), n.v4[i], 80)
		n.serve(n.world.Namespace(), n.v6[i], 80)
	}
	n.server = n.resolver(n.dns.Namespace(), n.dns.v4, n.dns.v6)
	n.write("names", policy)
	n.settle()
	return n
}

// addr returns the i-th address of the world, of a family.
func (n *namesNode) addr(i, family int) netip.Addr {
	if family == 4 {
		return n.v4[i]
	}
	return n.v6[i]
}

// resolves asks the pod's resolver and wants one address.
func (n *namesNode) resolves(proto string, family int, name string, want netip.Addr) {
	n.Helper()
	got, err := n.lookup(n.client.Namespace(), proto, n.dns.addr(family), family, name)
	if err != nil || len(got) != 1 || got[0] != want {
		n.Fatalf("look-up of %s over %s: %v, %v, want %v", name, proto, got, err, want)
	}
}

// once sends one datagram, which is never sent again, and reports whether it
// came back. Silence is believed after wait.
func (n *namesNode) once(dst netip.Addr, wait time.Duration) bool {
	n.Helper()
	var c net.Conn
	must(n.T, n.client.Namespace().Do(func() (err error) {
		c, err = net.Dial("udp", at(dst, 80).String())
		return err
	}))
	defer c.Close()
	must(n.T, c.SetDeadline(time.Now().Add(wait)))
	_, err := c.Write([]byte("first"))
	must(n.T, err)
	buf := make([]byte, 16)
	_, err = c.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		n.Fatalf("datagram to %v: %v", dst, err)
	}
	return err == nil
}

const silence = 300 * time.Millisecond

func everyMode(t *testing.T, test func(t *testing.T, s setup)) {
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			test(t, setup{change: func(c *control.Config) { c.Offload = offload }})
		})
	}
}

// TestNames looks fifty names up, one after the other, and sends one datagram
// to each address: not one of them is lost, and none gets through before.
func TestNames(t *testing.T) {
	t.Parallel()
	for language, policy := range map[string]string{"cilium": ciliumNames, "cluster": clusterNames} {
		t.Run(language, func(t *testing.T) {
			everyMode(t, func(t *testing.T, s setup) {
				n := newNames(t, s, policy)
				for i := range 50 {
					name, family := fmt.Sprintf("n%d.any.test", i), 4+2*(i%2)
					n.server.set(name, n.v4[i], n.v6[i])
					dst := n.addr(i, family)
					if i < 4 && n.once(dst, silence) {
						t.Errorf("%v answers before anyone has looked it up", dst)
					}
					n.resolves([]string{"udp", "tcp"}[i/2%2], family, name, dst)
					if !n.once(dst, patience) {
						t.Errorf("the first datagram to %s after its look-up is lost", name)
					}
					if other := n.addr(i, 10-family); i < 4 && n.once(other, silence) {
						t.Errorf("%v answers, of which nobody has asked", other)
					}
				}
				// A name that no rule is about, and one that it may not teach.
				n.server.set("other.test", n.v4[51])
				n.resolves("udp", 4, "other.test", n.v4[51])
				n.server.set("foreign.example", n.v4[52])
				n.resolves("udp", 4, "foreign.example", n.v4[52])
				for i := 51; i < 53; i++ {
					if n.once(n.v4[i], silence) {
						t.Errorf("%v answers", n.v4[i])
					}
				}
				n.server.set("web.test", n.v4[53])
				n.stockLookup("web.test", n.v4[53])
				n.probeAll(&probe{proto: "tcp", from: n.client.Namespace(), src: n.client.v4, dst: n.v4[53], dport: 80, pass: true})
				n.listed("web.test", n.v4[53])
			})
		})
	}
}

// stockLookup looks a name up with the stub of the C library.
func (n *namesNode) stockLookup(name string, want netip.Addr) {
	n.Helper()
	conf := filepath.Join(n.dir, ".resolv.conf")
	must(n.T, os.WriteFile(conf, fmt.Appendf(nil, "nameserver %s\noptions edns0\n", n.dns.v4), 0o644))
	out := n.run(n.client.Namespace(), "unshare", "-m", "sh", "-c",
		"mount --bind "+conf+" /etc/resolv.conf && getent ahostsv4 "+name)
	if !strings.Contains(out, want.String()) {
		n.Errorf("getent says %q, want %v", out, want)
	}
}

// listed wants the API to know a name.
func (n *namesNode) listed(name string, addr netip.Addr) api.Name {
	n.Helper()
	names, err := n.api.Names(n.Context())
	must(n.T, err)
	for _, x := range names {
		if x.Name == name && x.Address == addr {
			if x.Pod != "client" || x.Namespace != "x" || x.Resolver != n.dns.v4 || !x.Until.After(time.Now()) {
				n.Errorf("listed as %+v", x)
			}
			return x
		}
	}
	n.Errorf("%s is not listed among %d names", name, len(names))
	return api.Name{}
}

// TestSpoofedNames answers what was not asked, what was asked amiss and what was
// asked of another: none of it is learned, and the right answer after it is.
func TestSpoofedNames(t *testing.T) {
	t.Parallel()
	n := newNames(t, setup{}, ciliumNames)
	mallory := n.addPod("mallory", 3, "app: dns")
	n.settle()
	false53 := n.resolver(mallory.Namespace(), mallory.v4)
	n.server.set("a.any.test", n.v4[0])
	lie := &resolver{addrs: map[string][]netip.Addr{"a.any.test.": {n.v4[1]}, "b.any.test.": {n.v4[1]}}, ttl: 1000}
	n.server.before = func(pc net.PacketConn, to net.Addr, question, _ []byte) {
		_, _ = false53.conns[0].WriteTo(lie.answer(question), to)
		wrongID := append([]byte(nil), question...)
		wrongID[0] ^= 1
		wrongName := append([]byte(nil), question...)
		wrongName[13] = 'b' // of a.any.test
		for _, q := range [][]byte{wrongID, wrongName} {
			_, _ = pc.WriteTo(lie.answer(q), to)
		}
	}
	n.resolves("udp", 4, "a.any.test", n.v4[0])

	// Out of the blue.
	var c net.PacketConn
	must(t, n.client.Namespace().Do(func() (err error) {
		c, err = net.ListenPacket("udp", at(n.client.v4, 0).String())
		return err
	}))
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(patience)))
	for _, from := range []*resolver{n.server, false53} {
		_, err := from.conns[0].WriteTo(lie.answer(query("b.any.test")), c.LocalAddr())
		must(t, err)
		_, _, err = c.ReadFrom(make([]byte, 1500))
		must(t, err) // policies let it through
	}
	if n.once(n.v4[1], silence) {
		t.Error("a lie was learned")
	}
	if !n.once(n.v4[0], patience) {
		t.Error("the right answer was not learned")
	}
	n.listed("a.any.test", n.v4[0])
}

// TestNamesRestart sees that a restarted agent knows what its predecessor
// learned, and reads past a file that is none.
func TestNamesRestart(t *testing.T) {
	t.Parallel()
	n := newNames(t, setup{}, ciliumNames)
	n.server.set("a.any.test", n.v4[0], n.v6[0])
	n.resolves("udp", 4, "a.any.test", n.v4[0])
	talk := n.talkTo(n.client, at(n.v4[0], 80))
	file := n.cfg.Socket + ".names"
	n.eventually("names are saved", func() bool {
		data, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(data), "a.any.test")
	})
	n.signal(unix.SIGKILL)
	n.start()
	talk.say("with the next agent")
	if !n.once(n.v4[0], patience) {
		t.Error("a name is forgotten over the restart")
	}
	n.signal(unix.SIGKILL)
	must(t, os.WriteFile(file, []byte(`{"version":1,"names":[{`), 0o600))
	n.start()
	if notes := fmt.Sprint(n.status().Notes); !strings.Contains(notes, "names of an earlier run") {
		t.Errorf("notes %s", notes)
	}
	n.resolves("udp", 6, "a.any.test", n.v6[0])
	if !n.once(n.v6[0], patience) {
		t.Error("nothing is learned any more")
	}
}

// TestNamesExpire sees that an address goes with its time, unless a connection
// uses it.
func TestNamesExpire(t *testing.T) {
	t.Parallel()
	n := newNames(t, setup{change: func(c *control.Config) { c.Names.MinTTL = 0 }}, ciliumNames)
	n.server.ttl = 10 // enough to connect in
	n.server.set("used.any.test", n.v4[0])
	n.server.set("idle.any.test", n.v4[1])
	n.resolves("udp", 4, "used.any.test", n.v4[0])
	talk := n.talkTo(n.client, at(n.v4[0], 80))
	n.resolves("udp", 4, "idle.any.test", n.v4[1])
	known := func(name string) (is, used bool) {
		names, err := n.api.Names(context.Background())
		must(t, err)
		for _, x := range names {
			if x.Name == name {
				return true, x.InUse
			}
		}
		return false, false
	}
	n.eventually("an idle name is forgotten", func() bool { is, _ := known("idle.any.test"); return !is })
	n.eventually("a used one is kept", func() bool { is, used := known("used.any.test"); return is && used })
	talk.say("beyond its time")
	n.eventually("no datagram gets through", func() bool { return !n.once(n.v4[1], silence) })
	talk.say("again")
	talk.conn.Close()
	n.eventually("the other is forgotten after its connection", func() bool { is, _ := known("used.any.test"); return !is })
}
