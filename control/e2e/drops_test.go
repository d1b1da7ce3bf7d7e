package e2e_test

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/forward"
)

// TestServicePartlyTold looks for events of what the tables drop: who called, which
// backend the host had chosen, and the policy that denies it.
func TestServicePartlyTold(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPartly(t, s)
		n.leads(n.bad)
		probes := n.calls(n.caged, false)
		n.probeAll(probes...)
		for _, p := range probes {
			family := 0
			if p.dst.Is6() {
				family = 1
			}
			p.dst, p.dport, p.reason, p.policy = n.bad.addrs[family], 80, "policy", "cage"
			n.expectDenied(p)
			f := n.event(p.String(), func(f *api.Flow) bool { return f.Src.Port == p.sport && f.Hook == "service" })
			if f.Src.Pod != "caged" || f.Dst.Pod != "bad" || f.Reply || f.Generation == 0 {
				t.Errorf("%v: told of %s", p, describe(&f))
			}
		}
		if s := n.status(); s.Services.Silent != "" || s.Events.Lost != 0 {
			t.Errorf("status: %+v, %d events lost", s.Services, s.Events.Lost)
		}
		// What no rule denies: the host knows it before the agent does.
		n.elsewhere("unknown", n.unknown, "app: good")
		n.settle()
		n.leads(n.unknown)
		for _, p := range n.calls(n.caged, false)[:1] {
			n.probeAll(p)
			p.dst, p.dport, p.reason = n.unknown.addrs[0], 80, "not-ready"
			if p.src.Is6() {
				p.dst = n.unknown.addrs[1]
			}
			n.expectDenied(p)
		}
		// A live connection whose backend is denied: packets of both ends are.
		n.leads(n.good)
		talk := n.talkTo(n.caged, at(netip.MustParseAddr(n.vips[0]), servicePort))
		talk.say("while it is allowed")
		n.elsewhere("good", n.good, "app: other")
		n.elsewhere("bad", n.bad, "app: good")
		n.settle()
		talk.cut("the backend is denied")
		f := n.event("a live connection's", func(f *api.Flow) bool {
			return f.Hook == "service" && !f.Reply && f.Dst.Addr == n.good.addrs[0]
		})
		if f.Reason != "policy" || f.Src.Pod != "caged" || len(f.DecidedBy) == 0 {
			t.Errorf("told of %s", describe(&f))
		}
	})
}

// TestServicePartlyUnheard has somebody else listen to the group of NFLOG: the drops
// are the same, and are told as soon as the group is free.
func TestServicePartlyUnheard(t *testing.T) {
	t.Parallel()
	const group = 77
	n := newPartly(t, setup{change: func(c *control.Config) { c.NFLogGroup = group }})
	n.signal(unix.SIGTERM)
	var other *forward.Log
	must(t, n.net.Host().Do(func() (err error) {
		other, err = forward.Listen(group)
		return err
	}))
	n.start()
	n.eventually("the group is taken", func() bool { // which is found out beside the rules
		s := n.status()
		return strings.Contains(s.Services.Silent, forward.ErrTaken.Error()) && strings.Contains(strings.Join(s.Notes, "\n"), s.Services.Silent)
	})
	n.leads(n.bad)
	n.probeAll(n.calls(n.caged, false)...)
	if got := n.bad.got(); got > 0 {
		t.Errorf("%d packets came to a denied backend", got)
	}
	must(t, other.Close())
	n.eventually("the group is free", func() bool { return n.status().Services.Silent == "" })
	n.probeAll(n.calls(n.caged, false)...)
	n.event("a drop", func(f *api.Flow) bool { return f.Hook == "service" })
}
