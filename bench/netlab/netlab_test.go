package netlab_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/bench/netlab"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIV") == "1" {
		t.Fatal("network namespaces need root")
	}
	t.Skip("network namespaces need root")
}

// netFor builds a net that the test's end takes down, and sees that nothing is
// left of it.
func netFor(t *testing.T, change func(*netlab.Config)) *netlab.Net {
	t.Helper()
	needRoot(t)
	cfg := netlab.Default(fmt.Sprintf("t%d-%s", os.Getpid(), strings.ToLower(randomName(t))))
	if change != nil {
		change(&cfg)
	}
	n, err := netlab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if left, err := netlab.Namespaces(netlab.Prefix(cfg.Name)); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return n
}

func randomName(t *testing.T) string {
	f, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	name := f.Name()
	return name[strings.LastIndex(name, "x")+1:]
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func addPod(t *testing.T, n *netlab.Net, key string, list ...string) *netlab.Pod {
	t.Helper()
	p, err := n.AddPod(key, addrs(list...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReachability tries every pair of ends of both shapes in both families
// with TCP, UDP and SCTP: without policies, everything passes.
func TestReachability(t *testing.T) {
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		for _, mtu := range []int{1500, 9000} {
			t.Run(fmt.Sprintf("%s/%d", shape, mtu), func(t *testing.T) {
				n := netFor(t, func(c *netlab.Config) { c.Shape, c.MTU, c.Queues = shape, mtu, 2 })
				a := addPod(t, n, "x/a", "10.0.1.10", "fd00:1::10")
				b := addPod(t, n, "x/b", "10.0.1.11", "fd00:1::11")
				c := addPod(t, n, "y/c", "10.7.0.1", "fd00:7::1") // a prefix of its own
				ext := []string{"203.0.113.7", "2001:db8::7", "169.254.169.254", "10.0.1.77", "fd00:1::77"}
				ends := []end{
					{a.Namespace(), a.Addrs()}, {b.Namespace(), b.Addrs()}, {c.Namespace(), c.Addrs()},
				}
				for _, s := range ext {
					e, err := n.AddExternal(netip.MustParseAddr(s))
					if err != nil {
						t.Fatal(err)
					}
					ends = append(ends, end{e.Namespace(), addrs(s)})
				}
				for _, s := range []string{"10.0.1.200", "fd00:1::200"} {
					if err := n.AddHostAddr(netip.MustParseAddr(s)); err != nil {
						t.Fatal(err)
					}
				}
				ends = append(ends, end{n.Host(), addrs("10.0.1.200", "fd00:1::200")})
				everyPair(t, ends)
			})
		}
	}
}

func TestPodsComeAndGo(t *testing.T) {
	for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
		t.Run(string(shape), func(t *testing.T) {
			n := netFor(t, func(c *netlab.Config) { c.Shape = shape })
			a := addPod(t, n, "x/a", "10.0.1.10")
			for range 3 { // the same name and address, each time anew
				b := addPod(t, n, "x/b", "10.0.1.11", "fd00::11")
				everyPair(t, []end{{a.Namespace(), a.Addrs()}, {b.Namespace(), b.Addrs()[:1]}})
				if err := n.RemovePod("x/b"); err != nil {
					t.Fatal(err)
				}
			}
			if n.Owner(netip.MustParseAddr("10.0.1.11")) != "" {
				t.Error("address of a removed pod is still taken")
			}
			if err := n.RemovePod("x/b"); err == nil {
				t.Error("removed a pod twice")
			}
		})
	}
}

// TestCrowdedBridge has more pods than may resolve each other, each in a prefix
// of its own, and one that comes again elsewhere.
func TestCrowdedBridge(t *testing.T) {
	n := netFor(t, func(c *netlab.Config) { c.Shape = netlab.Bridge })
	pods := func() (ends []end) {
		for _, p := range n.Pods() {
			ends = append(ends, end{p.Namespace(), p.Addrs()[:1]})
		}
		return ends
	}
	for i := range 20 {
		addPod(t, n, fmt.Sprintf("x/p%d", i), fmt.Sprintf("10.0.%d.1", i), fmt.Sprintf("fd00:%d::1", i))
	}
	everyPair(t, pods())
	for _, i := range []int{0, 19} {
		if err := n.RemovePod(fmt.Sprintf("x/p%d", i)); err != nil {
			t.Fatal(err)
		}
		addPod(t, n, fmt.Sprintf("x/again%d", i), fmt.Sprintf("10.0.%d.1", i))
	}
	everyPair(t, pods())
}

func TestExternals(t *testing.T) {
	n := netFor(t, nil)
	a := addPod(t, n, "x/a", "10.0.1.10", "fd00:1::10")
	for range 2 { // the same addresses, anew
		e, err := n.AddExternal(addrs("203.0.113.7", "2001:db8::7")...)
		if err != nil {
			t.Fatal(err)
		}
		if n.External(e.Addrs()[1]) != e || len(n.Externals()) != 1 {
			t.Error("the host is not found by its second address, or found twice")
		}
		if _, err := n.AddExternal(e.Addrs()[1]); err == nil {
			t.Error("added an address twice")
		}
		everyPair(t, []end{{a.Namespace(), a.Addrs()}, {e.Namespace(), e.Addrs()}})
		if err := n.RemoveExternal(e); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAddPodRefuses(t *testing.T) {
	n := netFor(t, nil)
	addPod(t, n, "x/a", "10.0.1.10")
	for _, c := range []struct{ key, addr, want string }{
		{"x/a", "10.0.1.12", "exists"},
		{"x/b", "10.0.1.10", "belongs to x/a"},
		{"x/b", "198.18.0.1", "belongs to host"},
		{"x/b", "127.0.0.1", "not a unicast"},
		{"x/b", "224.0.0.1", "not a unicast"},
		{"x/b", "255.255.255.255", "not a unicast"},
		{"x/b", "fe80::5", "link-local"},
		{"x/b", "::ffff:1.2.3.4", "IPv6 clothes"},
		{"x/b", "169.254.1.1", "lab itself"},
	} {
		_, err := n.AddPod(c.key, addrs(c.addr))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("AddPod(%s, %s): %v, want an error with %q", c.key, c.addr, err, c.want)
		}
	}
	addPod(t, n, "x/b", "10.0.1.12") // and the refusals left nothing behind
}

func TestConfigValidateReportsEveryFault(t *testing.T) {
	c := netlab.Config{Name: "a--b", Shape: "ring", MTU: 100, Queues: 0, NodeAddrs: addrs("::1"), Cable: []string{"a", "b"}, Bond: []string{"c"}}
	err := c.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"a--b"`, `"ring"`, "MTU 100", "queues 0", "::1", "cable and bond"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
}
