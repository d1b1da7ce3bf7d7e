//go:build guest

package e2e_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/source/kube/kubetest"
)

// year is what the clock jumps by. Whoever takes the time of day for a
// duration is wrong by it, and says so.
const year = 365 * 24 * time.Hour

// jumps sets the machine's clock ahead, back beyond where it was, and right
// again, and calls check each time. The machine is the test's own: see
// tools/vm.
func jumps(t *testing.T, check func(what string)) {
	t.Helper()
	for _, j := range []struct {
		what string
		by   time.Duration
	}{{"a year later", year}, {"a year before", -2 * year}, {"at the right time again", year}} {
		to := time.Now().Add(j.by)
		tv := unix.NsecToTimeval(to.UnixNano())
		must(t, unix.Settimeofday(&tv))
		if off := time.Now().Round(0).Sub(to.Round(0)); off.Abs() > time.Hour {
			t.Fatalf("%s: the clock is %v off", j.what, off)
		}
		check(j.what)
	}
}

// TestClockJump lets the clock jump while pods talk. No flow ends, rules are
// published as before, names stay learned, also over a restart, and nothing is
// said to hang.
func TestClockJump(t *testing.T) {
	n := newNames(t, setup{}, ciliumNames)
	server, friend := n.addPod("server", 4, "app: server"), n.addPod("friend", 5, "role: friend")
	n.serveBoth(server, 80)
	n.apply("server", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
	n.server.set("web.test", n.v4[0])
	n.resolves("udp", 4, "web.test", n.v4[0])
	talk, stream := n.talk(friend, server, 4, 80), n.podStream(friend, server, 6, 80)
	began := stream.mark()
	flows := func() (sum int) {
		for _, w := range n.status().Workers {
			sum += w.Flows
		}
		return sum
	}
	n.eventually("both flows counted", func() bool { return flows() >= 2 })
	labels := "role: stranger"
	jumps(t, func(what string) {
		t.Helper()
		talk.say(what)
		stream.after(20)
		n.eventually(what+": both flows counted", func() bool { return flows() >= 2 })
		s := n.status()
		if !s.Ready || s.StaleMs != 0 {
			t.Errorf("%s: ready %v, stale for %d ms", what, s.Ready, s.StaleMs)
		}
		for _, w := range s.Workers {
			if age := time.Duration(w.BeatAgeMs) * time.Millisecond; !w.Alive || age.Abs() > time.Hour {
				t.Errorf("%s: worker %d alive %v, its last heartbeat was %v ago", what, w.ID, w.Alive, age)
			}
		}
		if !n.once(n.v4[0], patience) {
			t.Errorf("%s: what was learned of a name is forgotten", what)
		}
		// Rules are published, and judge at once.
		n.apply("friend", "podSelector: {matchLabels: {role: friend}}\npolicyTypes: [Ingress]\ningress:\n- from: [{podSelector: {matchLabels: {"+labels+"}}}]")
		n.probeAll(append(all(friend, server, 80, true), all(n.client, server, 80, false)...)...)
		labels += "x"
		if what != "a year later" {
			return
		}
		// The next agent reads the file at another time of day than it was
		// learned at.
		n.signal(unix.SIGTERM)
		n.start()
		talk.say(what + ", with the next agent")
		if !n.once(n.v4[0], patience) {
			t.Errorf("%s: the next agent does not know the name", what)
		}
	})
	stream.intact("while the clock jumped", began)
}

// TestClockJumpStale lets the clock jump while no API server answers: how stale
// the rules are is counted in real time.
func TestClockJumpStale(t *testing.T) {
	n := newNode(t, setup{noAgent: true})
	var l net.Listener
	must(t, n.net.Host().Do(func() (err error) {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
		return err
	}))
	api := kubetest.Simulate(t, l)
	api.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	p := &pod{name: "server", labels: "app: server", v4: netip.MustParseAddr("10.0.1.11"), v6: netip.MustParseAddr("fd00:1::11")}
	var err error
	p.Pod, err = n.net.AddPod("x/"+p.name, []netip.Addr{p.v4, p.v6})
	must(t, err)
	api.Set(p.object())
	n.cfg.Kubeconfig, n.cfg.Report = api.Kubeconfig(), false
	n.launch()
	n.eventually("ready", func() bool {
		s, err := n.api.Status(t.Context())
		return err == nil && s.Ready && s.Endpoints == 1
	})
	must(t, l.Close())
	api.Cut()
	n.eventually("stale", func() bool { return n.status().StaleMs > 0 })
	since := time.Now() // before the agent is asked, however long that takes
	before := n.status().StaleMs
	jumps(t, func(what string) {
		t.Helper()
		asked := time.Now()
		s := n.status()
		if most := before + time.Since(since).Milliseconds() + 1000; s.StaleMs < before || s.StaleMs > most {
			t.Errorf("%s: stale for %d ms, want %d to %d", what, s.StaleMs, before, most)
		}
		if !s.Ready {
			t.Errorf("%s: not ready", what)
		}
		before, since = s.StaleMs, asked
	})
}
