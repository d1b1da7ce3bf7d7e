package link_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/link"
)

const insideVar = "SLUICE_LINK_TEST_INSIDE"

// inside runs a test in a process whose network namespace is its own.
func inside(t *testing.T, test func(t *testing.T)) {
	if os.Getenv(insideVar) != "" {
		test(t)
		return
	}
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("REQUIRE_PRIV=1, but not root")
		}
		t.Skip("needs root")
	}
	ns, err := netlab.CreateNamespace(netlab.Prefix(fmt.Sprintf("link-%d", os.Getpid())) + t.Name())
	must(t, err)
	t.Cleanup(func() {
		ns.Close()
		must(t, netlab.DeleteNamespace(ns.Name()))
	})
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), insideVar+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Run(cmd); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// addVeth makes a pair that is up, and returns its first end.
func addVeth(t *testing.T, name string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}))
	for _, end := range []string{name + "-peer", name} {
		l, err := netlink.LinkByName(end)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
	}
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func addAddr(t *testing.T, l netlink.Link, text, peer string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(text)
	must(t, err)
	if peer != "" {
		a.Peer, err = netlink.ParseIPNet(peer)
		must(t, err)
	}
	must(t, netlink.AddrAdd(l, a))
	return a
}

// TestTable sees the table follow what becomes of links and addresses.
func TestTable(t *testing.T) {
	inside(t, func(t *testing.T) {
		var table link.Table
		must(t, table.Follow(t.Context(), func() {}))
		same := func(what string) {
			t.Helper()
			eventually(t, what, table.Compare)
		}
		same("at first")
		a := addVeth(t, "a")
		same("link added")
		if !table.Exists(a.Attrs().Index, "a") || table.Exists(a.Attrs().Index, "b") || table.Exists(a.Attrs().Index+100, "a") {
			t.Error("link added: not found, or another one is")
		}

		// A port that leaves its bridge is told as deleted.
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "bridge"
		must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		bridge, err := netlink.LinkByName("bridge")
		must(t, err)
		must(t, netlink.LinkSetUp(bridge))
		must(t, netlink.LinkSetMaster(a, bridge))
		must(t, netlink.LinkSetNoMaster(a))
		same("out of the bridge")
		if !table.Has(a) {
			t.Error("out of the bridge: link is not known")
		}

		// An address may be there for two peers.
		first := addAddr(t, a, "10.1.0.1/32", "10.1.0.2/32")
		second := addAddr(t, a, "10.1.0.1/32", "10.1.0.3/32")
		addAddr(t, bridge, "fd00:1::1/64", "")
		addr4, addr6 := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
		has := func(want4 bool) func() error {
			return func() error {
				own, _ := table.HostAddrs()
				if !slices.Contains(own, addr6) || slices.Contains(own, addr4) != want4 || !slices.IsSortedFunc(own, netip.Addr.Compare) {
					return fmt.Errorf("own addresses %v, want %v among them: %v", own, addr4, want4)
				}
				return nil
			}
		}
		eventually(t, "addresses added", has(true))
		same("addresses added")
		must(t, netlink.AddrDel(a, first))
		addAddr(t, bridge, "fd00:1::2/64", "") // comes after
		eventually(t, "one peer left", func() error {
			if own, _ := table.HostAddrs(); !slices.Contains(own, addr6.Next()) {
				return fmt.Errorf("own addresses %v", own)
			}
			return has(true)()
		})
		// The event of the one that went may come when all has been read after it.
		table.Apply(&netlink.AddrUpdate{LinkIndex: a.Attrs().Index, LinkAddress: *first.IPNet})
		if err := has(true)(); err != nil {
			t.Errorf("stale event: %v", err)
		}
		must(t, netlink.AddrDel(a, second))
		eventually(t, "no peer left", has(false))

		// Link-local ones are told apart: the bridge's is the node's own.
		eventually(t, "link-local addresses", func() error {
			own, local := table.HostAddrs()
			mine := func(x netip.Addr) bool { return x.IsLinkLocalUnicast() }
			if len(local) != 2 || slices.ContainsFunc(local, func(x netip.Addr) bool { return !mine(x) }) || !slices.ContainsFunc(own, mine) {
				return fmt.Errorf("own %v, local %v, want the links' two and the bridge's", own, local)
			}
			return nil
		})

		must(t, netlink.LinkDel(a))
		same("link deleted")
		if table.Exists(a.Attrs().Index, "a") {
			t.Error("link deleted: it exists")
		}
		eventually(t, "its addresses are gone", func() error {
			if _, local := table.HostAddrs(); len(local) > 0 {
				return fmt.Errorf("%v", local)
			}
			return nil
		})
	})
}

// TestTableOverrun loses events, as nobody reads them, and sees the table come
// right by itself.
func TestTableOverrun(t *testing.T) {
	inside(t, func(t *testing.T) {
		var table link.Table
		var busy sync.Mutex
		must(t, table.Follow(t.Context(), func() {
			busy.Lock()
			defer busy.Unlock()
		}))
		gone, stays := addVeth(t, "gone"), addVeth(t, "stays")
		eventually(t, "at first", table.Compare)
		busy.Lock()
		for i := range 4000 { // more than sockets and channels hold
			must(t, netlink.LinkSetMTU(stays, 1400+i%2))
		}
		must(t, netlink.LinkDel(gone))
		fresh := addVeth(t, "fresh")
		addAddr(t, fresh, "10.1.0.1/32", "")
		if table.Has(fresh) || !table.Has(gone) {
			t.Error("the table follows although nobody reads events")
		}
		if !table.Exists(fresh.Attrs().Index, "fresh") {
			t.Error("a link that is newer than the last event is not found")
		}
		busy.Unlock()
		eventually(t, "afterwards", table.Compare)
	})
}

// What is a Service's is not the node's, though a link has it: with a thousand node
// ports and as many Services there would be a million calls of node ports.
func TestTableServices(t *testing.T) {
	inside(t, func(t *testing.T) {
		var table link.Table
		must(t, table.Follow(t.Context(), func() {}))
		addAddr(t, addVeth(t, "a"), "192.0.2.1/32", "")
		ipvs := addVeth(t, "kube-ipvs0")
		addAddr(t, ipvs, "10.96.0.1/32", "")
		addAddr(t, ipvs, "fd00:96::1/128", "")
		eventually(t, "addresses", table.Compare)
		if own, _ := table.HostAddrs(); len(own) != 1 || own[0] != netip.MustParseAddr("192.0.2.1") {
			t.Errorf("the node has %v", own)
		}
	})
}
