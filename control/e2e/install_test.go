package e2e_test

import (
	"fmt"
	"testing"
)

// TestInstall starts an agent on a node whose pods have long been at work: what
// the policies allow goes on without a loss, from the first diverted packet on,
// and what they deny is cut.
func TestInstall(t *testing.T) {
	t.Parallel()
	n := newNode(t, setup{noAgent: true})
	server, friend, other := n.addPod("server", 1, "app: server"), n.addPod("friend", 2, "role: friend"), n.addPod("other", 3, "role: other")
	for i := range 30 { // so that it takes a while
		n.addPod(fmt.Sprint("more-", i), 10+i, "role: more")
	}
	n.serveBoth(server, 80)
	n.policy("server", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
	talk, denied := n.talk(friend, server, 4, 80), n.talk(other, server, 6, 80)
	s4, s6 := n.podStream(friend, server, 4, 80), n.podStream(friend, server, 6, 80)
	s4.flows()
	s6.flows()
	began4, began6 := s4.mark(), s6.mark()
	n.start()
	talk.say("with an agent")
	s4.after(50)
	s4.intact("while the agent came", began4)
	s6.intact("while the agent came", began6)
	denied.cut("with an agent")
	if got := len(n.endpoints()); got != 33 {
		t.Errorf("%d endpoints", got)
	}
}
