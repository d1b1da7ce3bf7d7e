package forward_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// A kernel that can't log drops all the same.
func TestGuardMute(t *testing.T) {
	inNamespace(t)
	g, err := forward.Adopt(forward.DefaultGroup)
	must(t, err)
	must(t, g.Apply(tuples(0, 2), tuples(2, 3)))
	if got := nft(t, "list table ip sluice"); g.Mute() != nil || !strings.Contains(got, "log group 7353 snaplen 256") || !strings.Contains(got, "limit rate 10/second burst 20 packets") {
		t.Errorf("%v: %s", g.Mute(), got)
	}
	g, err = forward.Adopt(forward.DefaultGroup)
	must(t, err)
	g.TellBy("nosuch")
	must(t, g.Apply(tuples(0, 2), tuples(2, 3)))
	has(t, g, tuples(0, 2), tuples(2, 3))
	got := nft(t, "list table ip sluice")
	if g.Mute() == nil || strings.Contains(got, "log") || !strings.Contains(got, "drop") {
		t.Errorf("%v: %s", g.Mute(), got)
	}
	must(t, g.Apply(tuples(0, 1), tuples(0, 1)))
	if now := nft(t, "list table ip sluice"); !strings.Contains(now, "drop") {
		t.Error(now)
	}
	g, err = forward.Adopt(0)
	must(t, err)
	must(t, g.Apply(tuples(0, 2), nil))
	if got := nft(t, "list table ip sluice"); g.Mute() != nil || strings.Contains(got, "log") {
		t.Errorf("nothing was to be told: %v, %s", g.Mute(), got)
	}
}

// read reads a Log until there is enough, or too much time has passed.
func read(t *testing.T, l *forward.Log, enough func(count uint64) bool) (count uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, l.Read(ctx, 200*time.Millisecond, func(first []byte) {
		var h packet.Header
		if r := packet.ParseIP(first, &h); r != stat.OK || h.DstPort != 9999 {
			t.Errorf("a packet of %d bytes: %v, %+v", len(first), r, h)
		}
		count++
	}, func() {
		if enough(count) {
			cancel()
		}
	}))
	return count
}

// One listens to a group. What it is too slow for it knows the number of.
func TestLog(t *testing.T) {
	inNamespace(t)
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	nft(t, "add table inet test; add chain inet test out { type filter hook output priority 0; }; add rule inet test out udp dport 9999 log group 5 snaplen 64 drop")
	l, err := forward.Listen(5)
	must(t, err)
	if _, err := forward.Listen(5); !errors.Is(err, forward.ErrTaken) {
		t.Errorf("a second listener: %v", err)
	}
	c, err := net.Dial("udp", "127.0.0.1:9999")
	must(t, err)
	defer c.Close()
	send := func(n int) {
		for range n {
			_, _ = c.Write(make([]byte, 1000)) // dropped, as the error says
		}
	}
	send(3)
	if got := read(t, l, func(n uint64) bool { return n == 3 }); got != 3 || l.Lost != 0 {
		t.Errorf("%d packets, %d lost", got, l.Lost)
	}
	sent := 20000
	send(sent)
	got := read(t, l, func(n uint64) bool {
		if l.Lost > 0 && n+l.Lost == uint64(sent) {
			return true
		}
		send(1) // the next one tells how many are missing
		sent++
		return false
	})
	if l.Lost == 0 || got+l.Lost != uint64(sent) {
		t.Errorf("%d packets, %d lost, of %d", got, l.Lost, sent)
	}
	must(t, l.Close())
	l, err = forward.Listen(5)
	must(t, err)
	must(t, l.Close())
}
