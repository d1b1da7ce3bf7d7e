package e2e_test

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control"
)

// pair is a node with a server that only its friend may reach, and other pods.
type pair struct {
	*node
	server, friend, other *pod
}

func newPair(t *testing.T, s setup) *pair {
	t.Helper()
	n := newNode(t, s)
	p := &pair{node: n, server: n.addPod("server", 1, "app: server"),
		friend: n.addPod("friend", 2, "role: friend"), other: n.addPod("other", 3, "role: other")}
	n.serveBoth(p.server, 80)
	n.serveBoth(p.other, 80)
	p.allow("role: friend")
	return p
}

// allow changes whom the server's policy lets in.
func (p *pair) allow(labels string) {
	p.Helper()
	p.apply("server", allowFrom(labels, "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
}

// TestKilled kills the agent: what was established goes on, without a loss,
// and new flows meet what is configured. The next agent takes over without a
// loss, and enforces what has changed meanwhile.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, open := range []bool{false, true} {
		name := "closed"
		if open {
			name = "open"
		}
		for _, shape := range []netlab.Shape{netlab.Routed, netlab.Bridge} {
			t.Run(name+"/"+string(shape), func(t *testing.T) {
				t.Parallel()
				p := newPair(t, setup{shape: shape, change: func(c *control.Config) { c.FailOpen = open }})
				talk := p.talk(p.friend, p.server, 4, 80)
				s4 := p.podStream(p.friend, p.server, 4, 80)
				s6 := p.podStream(p.friend, p.server, 6, 80)
				began4, began6 := s4.mark(), s6.mark()
				p.signal(unix.SIGKILL)
				talk.say("without an agent")
				s4.after(100)
				s4.intact("without an agent", began4)

				// New flows.
				p.probeAll(&probe{proto: "tcp", from: p.friend.Namespace(), src: p.friend.v4, dst: p.server.v4, dport: 80, pass: open},
					&probe{proto: "udp", from: p.other.Namespace(), src: p.other.v6, dst: p.server.v6, dport: 80, pass: open})

				before := talk.retransmits()
				p.start()
				if !p.agentAdopted() {
					t.Error("the next agent did not adopt")
				}
				talk.say("with the next agent")
				s4.after(100)
				s4.intact("over the restart", began4)
				s6.intact("over the restart", began6)
				again := 0
				if !within(patience/6, func() bool { again = talk.retransmits() - before; return again <= 1 }) {
					t.Errorf("%d segments sent again over the restart", again)
				}
				p.probeAll(append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)...)
			})
		}
	}
}

// agentAdopted reports whether the agent has taken over what there was: all that it has
// to say of that is in its log then.
func (n *node) agentAdopted() bool {
	n.Helper()
	n.said("agent started")
	return containsLine(n.agent.log.String(), "adopted=true")
}

// TestTightenedWhileAway sees that a policy that was tightened while no agent
// ran cuts what was established before, once there is one, and no reply of it
// passes for a new flow.
func TestTightenedWhileAway(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	talk := p.talk(p.friend, p.server, 6, 80)
	s := p.podStream(p.friend, p.server, 4, 80)
	p.signal(unix.SIGTERM)
	talk.say("without an agent")
	p.policy("server", allowFrom("role: nobody", "[{port: 80}]"))
	p.start()
	talk.cut("after the restart")
	s.silent("after the restart")
	p.allow("role: friend")
	talk.resumes("loosened again")
	s.flows()
}

// TestRestarts restarts the agent again and again under traffic, with other
// numbers of workers.
func TestRestarts(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{change: func(c *control.Config) { c.Workers = 2 }})
	s := p.podStream(p.friend, p.server, 4, 80)
	back := p.podStream(p.server, p.other, 6, 80)
	talk := p.talk(p.friend, p.server, 4, 80)
	for i := range 5 {
		fromS, fromBack := s.mark(), back.mark()
		if i%2 == 0 {
			p.signal(unix.SIGKILL)
		} else {
			p.signal(unix.SIGTERM)
		}
		p.cfg.Workers = 1 + (i+1)%3
		p.start()
		talk.say("after a restart")
		s.after(20)
		s.intact("over a restart", fromS)
		back.intact("over a restart", fromBack)
	}
}

// hangVar is for how long TestHung has the agent stand still, beyond what it takes
// to see what becomes of new flows: nothing changes with time, so a moment does.
const hangVar = "SLUICE_E2E_HANG"

// TestHung stops the agent without ending it: its heartbeat tells.
func TestHung(t *testing.T) {
	long, _ := time.ParseDuration(os.Getenv(hangVar))
	t.Parallel()
	p := newPair(t, setup{change: func(c *control.Config) { c.HeartbeatTimeout = control.Duration(500_000_000) }})
	s := p.podStream(p.friend, p.server, 4, 80)
	began := s.mark()
	p.signal(unix.SIGSTOP)
	t.Cleanup(func() { _ = p.agent.cmd.Process.Signal(unix.SIGCONT) })
	p.eventually("agent stands still", p.agent.stopped)
	// The first of these may still get stuck in the steering port.
	p.probeAll(&probe{proto: "tcp", from: p.friend.Namespace(), src: p.friend.v4, dst: p.server.v4, dport: 80},
		&probe{proto: "udp", from: p.friend.Namespace(), src: p.friend.v6, dst: p.server.v6, dport: 80})
	time.Sleep(long)
	s.intact("while the agent hangs", began)
	p.signal(unix.SIGCONT)
	p.eventually("new flows pass again", func() bool {
		r, err := p.friend.Namespace().ProbeTCP(t.Context(), at(p.friend.v4, p.port()), at(p.server.v4, 80))
		return err == nil && r.Passed
	})
	if drops := p.status().Drops["agent-down"]; drops == 0 {
		t.Error("no packet was dropped because the agent was down")
	}
	s.intact("over all", began)
}

// TestExit sees what an agent leaves that is told to end.
func TestExit(t *testing.T) {
	t.Parallel()
	for _, onExit := range []string{control.ExitKeep, control.ExitCleanup} {
		t.Run(onExit, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{change: func(c *control.Config) { c.OnExit = onExit }})
			p.probeAll(all(p.other, p.server, 80, false, "server")[:2]...)
			s := p.podStream(p.friend, p.server, 4, 80)
			began := s.mark()
			p.signal(unix.SIGTERM)
			if p.agent.err != nil {
				t.Errorf("agent ended with %v", p.agent.err)
			}
			s.after(50)
			s.intact("after the end", began)
			if onExit == control.ExitKeep {
				if len(p.pins()) == 0 {
					t.Error("nothing is pinned any more")
				}
				p.probeAll(&probe{proto: "tcp", from: p.friend.Namespace(), src: p.friend.v4, dst: p.server.v4, dport: 80})
				p.cleanup()
			}
			if left := append(p.pins(), p.ownLinks()...); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			p.probeAll(all(p.other, p.server, 80, true)...) // nothing is enforced
			s.intact("after the clean-up", began)
		})
	}
}
