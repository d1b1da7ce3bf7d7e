package e2e_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// generations returns the generation of the rules of each pod.
func (n *node) generations() map[string]uint32 {
	g := make(map[string]uint32)
	for _, e := range n.endpoints() {
		g[e.Pod] = e.Generation
	}
	return g
}

// change has the server's policy let nobody in, on a port that depends on i.
func (p *pair) change(i int) {
	p.Helper()
	p.apply("server", allowFrom("role: other", fmt.Sprintf("[{port: %d}]", 1000+i)))
}

// TestOtherSizes restarts the agent with tables of other sizes, so that it
// can't take over all that was pinned. What was allowed before never passes for
// allowed because generations are counted anew.
func TestOtherSizes(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{})
	for i := range 4 { // the generation changes with what the rules mean
		p.change(i)
	}
	p.allow("role: friend")
	idle := p.talk(p.friend, p.server, 4, 80)
	s := p.podStream(p.friend, p.server, 6, 80)
	old := p.generations()

	p.signal(unix.SIGTERM)
	p.cfg.MaxPods, p.cfg.Fragments, p.cfg.DenyCache = 300, 1024, 2048
	p.start()
	s.flows()
	p.probeAll(append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)...)

	for i := 0; i < 8 && p.generations()["server"] != old["server"]; i++ {
		p.change(i)
	}
	t.Logf("generations: %v before, %v now", old, p.generations())
	idle.cut("tightened after the restart")
	p.allow("role: friend")
	idle.resumes("loosened")
	s.flows()
}
