package forward_test

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// inNamespace moves the test into a network namespace of its own.
func inNamespace(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIV") == "1" {
			t.Fatal("REQUIRE_PRIV=1, but not root")
		}
		t.Skip("needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func nft(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

// tuples makes n Tuples, of both families by turns.
func tuples(from, n int) forward.Set {
	out := forward.Set{}
	for i := from; i < from+n; i++ {
		x := forward.Tuple{Src: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Dst: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}),
			Proto: packet.ProtoTCP, Port: uint16(i + 1)}
		if i%2 == 1 {
			x.Src, x.Dst, x.Proto = netip.MustParseAddr("fd00::1"), netip.MustParseAddr(fmt.Sprintf("fd00:96::%x", i)), packet.ProtoUDP
		}
		out[x] = struct{}{}
	}
	return out
}

// has compares what a Guard says, and what the kernel does, with what they should.
func has(t *testing.T, g *forward.Guard, calls, ways forward.Set) {
	t.Helper()
	kernel, err := forward.Adopt(forward.DefaultGroup)
	must(t, err)
	for name, x := range map[string]*forward.Guard{"guard": g, "kernel": kernel} {
		c, w := x.Sets()
		if !maps.Equal(c, calls) || !maps.Equal(w, ways) {
			t.Fatalf("%s: %d calls and %d ways, not the %d and %d that should be there", name, len(c), len(w), len(calls), len(ways))
		}
	}
}

func tables(t *testing.T) string { return strings.TrimSpace(nft(t, "list", "tables")) }

func TestGuard(t *testing.T) {
	inNamespace(t)
	g, err := forward.Adopt(forward.DefaultGroup)
	must(t, err)
	must(t, g.Apply(nil, nil))
	if got := tables(t); got != "" {
		t.Errorf("without calls there is %s", got)
	}
	must(t, g.Apply(tuples(0, 2), tuples(2, 3)))
	has(t, g, tuples(0, 2), tuples(2, 3))
	first := nft(t, "-a", "list", "table", "ip", "sluice")
	for _, part := range []string{"ct original ip saddr . ct original ip daddr . ct protocol . ct original proto-dst @calls",
		"ct original ip saddr . ct reply ip saddr . ct protocol . ct reply proto-src @ways", "10.0.0.1 . 10.96.0.0 . tcp . 1 "} {
		if !strings.Contains(first, part) {
			t.Errorf("nft does not show %q:\n%s", part, first)
		}
	}

	// Changes are made in place, and however many.
	must(t, g.Apply(tuples(1, 3000), tuples(3, 5000)))
	has(t, g, tuples(1, 3000), tuples(3, 5000))
	must(t, g.Apply(tuples(0, 2), tuples(2, 3)))
	has(t, g, tuples(0, 2), tuples(2, 3))
	if now := nft(t, "-a", "list", "table", "ip", "sluice"); now != first {
		t.Errorf("the table was made anew:\n%s\nbefore:\n%s", now, first)
	}

	// A successor has what its predecessor had, and makes it its own.
	next, err := forward.Adopt(forward.DefaultGroup)
	must(t, err)
	has(t, next, tuples(0, 2), tuples(2, 3))
	must(t, next.Apply(tuples(0, 4), tuples(2, 3)))
	has(t, next, tuples(0, 4), tuples(2, 3))
	if nft(t, "-a", "list", "table", "ip", "sluice") == first {
		t.Error("the predecessor's table is still there")
	}

	// Only calls of one family: the other's table is gone.
	four := tuples(0, 1)
	must(t, next.Apply(four, four))
	if got := tables(t); got != "table ip sluice" {
		t.Errorf("tables: %s", got)
	}

	// Somebody flushes everything.
	if !next.Intact() {
		t.Error("not intact")
	}
	nft(t, "flush", "ruleset")
	if next.Intact() {
		t.Error("intact without a table")
	}
	must(t, next.Apply(four, four))
	has(t, next, four, four)
	nft(t, "flush", "ruleset")
	must(t, next.Apply(tuples(0, 2), nil)) // not noticed before
	has(t, next, tuples(0, 2), forward.Set{})

	must(t, next.Apply(nil, nil))
	if got := tables(t); got != "" {
		t.Errorf("without calls there is %s", got)
	}
	must(t, next.Apply(four, four))
	must(t, forward.Remove())
	must(t, forward.Remove())
	if got := tables(t); got != "" {
		t.Errorf("after the removal there is %s", got)
	}
}

// A table of the same name that is not ours to read is replaced.
func TestGuardReplaces(t *testing.T) {
	inNamespace(t)
	nft(t, "add table ip sluice; add set ip sluice calls { type ipv4_addr; elements = { 10.0.0.1 }; }; add chain ip sluice other")
	g, err := forward.Adopt(forward.DefaultGroup)
	if err == nil {
		t.Error("a table of another layout was read without complaint")
	}
	must(t, g.Apply(tuples(0, 1), tuples(0, 1)))
	has(t, g, tuples(0, 1), tuples(0, 1))
	if got := nft(t, "list table ip sluice"); strings.Contains(got, "other") {
		t.Errorf("not replaced: %s", got)
	}
}

// Somebody flushes everything and puts there what there once was, as who restores a
// saved ruleset: a table is there, and it is not the one that should be.
func TestGuardRestored(t *testing.T) {
	inNamespace(t)
	g, err := forward.Adopt(forward.DefaultGroup)
	must(t, err)
	four := func(from, n int) forward.Set {
		out := tuples(from, n)
		maps.DeleteFunc(out, func(x forward.Tuple, _ struct{}) bool { return x.Src.Is6() })
		return out
	}
	old := four(0, 4)
	restore := func() {
		nft(t, "flush", "ruleset")
		other, err := forward.Adopt(forward.DefaultGroup)
		must(t, err)
		must(t, other.Apply(old, old))
	}
	for _, now := range []forward.Set{four(10, 2), {}} {
		must(t, g.Apply(now, now))
		if !g.Intact() {
			t.Error("not intact")
		}
		restore()
		if g.Intact() {
			t.Errorf("with %d calls: intact, and the table has those of before", len(now))
		}
		must(t, g.Apply(now, now))
		has(t, g, now, now)
		if !g.Intact() {
			t.Errorf("with %d calls: not intact after it was made again", len(now))
		}
	}

	// Nothing of it is left either if nobody looked.
	restore()
	must(t, g.Apply(four(20, 2), four(20, 2)))
	has(t, g, four(20, 2), four(20, 2))
}

// The stock nft loads what it has listed, as who saves a ruleset and starts again does.
func TestGuardSaved(t *testing.T) {
	inNamespace(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	local := netip.MustParseAddr("127.0.0.1")
	for _, group := range []uint16{0, forward.DefaultGroup} {
		g, err := forward.Adopt(group)
		must(t, err)
		calls, ways := tuples(0, 4), tuples(4, 4)
		calls[forward.Tuple{Src: local, Dst: local, Proto: packet.ProtoUDP, Port: 9999}] = struct{}{}
		must(t, g.Apply(calls, ways))
		call, err := net.Dial("udp", "127.0.0.1:9999")
		must(t, err)
		_, _ = call.Write([]byte("denied")) // and the error says so
		must(t, call.Close())
		saved := nft(t, "list", "ruleset")
		if told := strings.Contains(saved, "expires"); g.Drops() != 1 || told != (group != 0) {
			t.Errorf("group %d: %d dropped, told %t", group, g.Drops(), told)
		}
		file := filepath.Join(t.TempDir(), "nftables.conf")
		must(t, os.WriteFile(file, []byte("flush ruleset\n"+saved), 0o600))
		nft(t, "-f", file)
		if got := nft(t, "list", "ruleset"); group == 0 && got != saved { // what is told expires
			t.Errorf("loaded:\n%s\nsaved:\n%s", got, saved)
		}
		has(t, g, calls, ways)
		if g.Intact() {
			t.Errorf("group %d: intact", group)
		}
		must(t, g.Apply(nil, nil))
	}
}

// A family's first call leaves the other's table as it is.
func TestGuardOtherFamily(t *testing.T) {
	inNamespace(t)
	g, err := forward.Adopt(forward.DefaultGroup)
	must(t, err)
	four := tuples(0, 1)
	must(t, g.Apply(four, four))
	before := nft(t, "-a", "list", "table", "ip", "sluice")
	must(t, g.Apply(tuples(0, 2), four))
	if now := nft(t, "-a", "list", "table", "ip", "sluice"); now != before {
		t.Errorf("the table was made anew:\n%s\nbefore:\n%s", now, before)
	}
}
