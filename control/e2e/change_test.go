package e2e_test

import (
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
)

// TestLiveChange tightens and loosens policies under live connections: they
// fall silent at the next packet, in both directions, and go on when they may.
func TestLiveChange(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		talk4, talk6 := n.talk(n.friend, n.server, 4, 80), n.talk(n.friend, n.server, 6, 80)
		udp := n.podStream(n.friend, n.server, 4, 80)
		other := n.podStream(n.friend, n.other, 6, 80)
		began := other.mark()

		start := time.Now()
		n.allow("role: nobody")
		t.Logf("tightened: in force after %v", time.Since(start))
		talk4.cut("tightened")
		talk6.cut("tightened")
		udp.silent("tightened")
		n.event("the connection's cut", func(f *api.Flow) bool {
			return f.Event == "changed" && f.Verdict == "deny" && f.Proto == "TCP" && f.Dst.Pod == "server" &&
				len(f.DecidedBy) == 1 && f.DecidedBy[0].Name == "server" && f.DecidedBy[0].Rule == -1
		})
		for _, f := range n.events() {
			if f.Event == "new" && f.Src.Pod == "server" && f.Dst.Pod == "friend" {
				t.Errorf("a reply opened the flow anew: %s", describe(&f))
			}
		}
		n.probeAll(all(n.friend, n.server, 80, false, "server")...)

		start = time.Now()
		n.allow("role: friend")
		t.Logf("loosened: in force after %v", time.Since(start))
		n.probeAll(all(n.friend, n.server, 80, true)...)
		talk4.resumes("loosened")
		talk6.resumes("loosened")
		udp.flows()
		n.event("the connection's return", func(f *api.Flow) bool {
			return f.Event == "changed" && f.Verdict == "allow" && f.Proto == "TCP" && f.Dst.Pod == "server"
		})
		other.intact("flow that no change concerned", began)
	})
}

// TestLabelChange takes a label from the remote pod and gives it back.
func TestLabelChange(t *testing.T) {
	t.Parallel()
	everyKind(t, func(t *testing.T, s setup) {
		n := newPair(t, s)
		talk := n.talk(n.friend, n.server, 4, 80)
		udp := n.podStream(n.friend, n.server, 6, 80)
		n.label(n.friend, "role: former")
		n.settle()
		talk.cut("label taken")
		udp.silent("label taken")
		n.label(n.friend, "role: friend")
		n.settle()
		talk.resumes("label given back")
		udp.flows()
		// The other pod gets the right, and has it at once.
		n.probeAll(all(n.other, n.server, 80, false, "server")...)
		n.label(n.other, "role: friend")
		n.settle()
		n.talk(n.other, n.server, 4, 80)
	})
}

// TestServerSpeaks sees that the server of a cut connection can't revive it by
// what it sends itself.
func TestServerSpeaks(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{})
	talk := n.talk(n.server, n.other, 4, 80) // the server is the client here
	n.policy("cage", "podSelector: {matchLabels: {app: server}}\npolicyTypes: [Egress]")
	n.settle()
	talk.cut("egress closed")
	n.remove("policy-cage")
	n.settle()
	talk.resumes("egress open")
}

// TestBadManifests sees that what can't be read leaves what is in force, and
// that a policy that isn't valid isolates what it selects; both are reported.
func TestBadManifests(t *testing.T) {
	t.Parallel()
	n := newPair(t, setup{})
	talk := n.talk(n.friend, n.server, 4, 80)
	stream := n.podStream(n.friend, n.server, 6, 80)
	began := stream.mark()
	n.write("policy-server", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: [")
	n.settle()
	rejected := n.status().Rejected
	if len(rejected) != 1 || rejected[0].Effect == "" || rejected[0].Source == "" {
		t.Errorf("rejected: %+v, want the broken file", rejected)
	}
	talk.say("file broken")
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
	stream.intact("file broken", began)

	// A version that isn't valid leaves the rules of the last one that was.
	notValid := "policyTypes: [Ingress]\ningress: [{ports: [{port: 99999}]}]"
	n.apply("server", "podSelector: {matchLabels: {app: server}}\n"+notValid)
	n.expectRejected("server")
	talk.say("version not valid")
	n.probeAll(all(n.other, n.server, 80, false, "server")[:2]...)
	stream.intact("version not valid", began)

	// A policy that never was valid lets nothing in.
	n.probeAll(all(n.friend, n.other, 80, true)...)
	talk = n.talk(n.friend, n.other, 4, 80)
	n.allow("role: friend")
	n.apply("new", "podSelector: {matchLabels: {role: other}}\n"+notValid)
	n.expectRejected("new")
	talk.cut("new policy not valid")
	n.probeAll(all(n.friend, n.other, 80, false, "new")...)
	n.remove("policy-new")
	n.settle()
	talk.resumes("policy gone")
	if rejected = n.status().Rejected; len(rejected) != 0 {
		t.Errorf("rejected: %+v", rejected)
	}
}

// expectRejected wants the API to say that a policy is not valid, and where.
func (n *node) expectRejected(policy string) {
	n.Helper()
	got := n.status().Rejected
	if len(got) != 1 || got[0].Object != "NetworkPolicy x/"+policy || got[0].Field == "" || got[0].Effect == "" {
		n.Errorf("rejected: %+v, want the policy %s", got, policy)
	}
}
