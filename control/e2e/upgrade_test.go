package e2e_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control"
)

// otherVar names these tests as they were built from another version: its agent
// takes turns with ours. Without it, ours follows itself.
const otherVar = "SLUICE_E2E_OTHER"

// TestUpgrade puts one version's agent in the place of the other's under traffic,
// forth and back, told to end and killed. No packet of what is established is
// lost, unless a map has another layout, nor does anything pass that policy forbids.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	other := os.Getenv(otherVar)
	n := newNode(t, setup{noAgent: true})
	p := &pair{node: n, server: n.addPod("server", 1, "app: server"),
		friend: n.addPod("friend", 2, "role: friend"), other: n.addPod("other", 3, "role: other")}
	n.serveBoth(p.server, 80)
	n.serveBoth(p.other, 80)
	n.policy("server", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
	n.exe = other
	n.start()
	talk, back := p.talk(p.friend, p.server, 4, 80), p.talk(p.server, p.other, 6, 80)
	s4, s6 := p.podStream(p.friend, p.server, 4, 80), p.podStream(p.server, p.other, 6, 80)
	for i := range 6 {
		what := fmt.Sprintf("turn %d", i)
		from4, from6, before := s4.mark(), s6.mark(), talk.retransmits()+back.retransmits()
		p.signal([]unix.Signal{unix.SIGTERM, unix.SIGKILL}[i/2%2])
		if p.exe = ""; i%2 == 1 {
			p.exe = other
		}
		p.start()
		adopted, log := p.agentAdopted(), p.agent.log.String()
		replaced := containsLine(log, "was replaced")
		if !adopted || replaced && other == "" {
			t.Errorf("%s: the agent did not adopt all:\n%s", what, log)
		}
		talk.say(what)
		back.say(what)
		if replaced {
			t.Logf("%s: another layout:\n%s", what, log)
			s4.flows()
			s6.flows()
			continue
		}
		s4.after(50)
		s4.intact(what, from4)
		s6.intact(what, from6)
		again := 0
		if !within(patience/6, func() bool { again = talk.retransmits() + back.retransmits() - before; return again <= 0 }) {
			t.Errorf("%s: %d segments sent again", what, again)
		}
		p.probeAll(append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)...)
	}
}

// TestOtherLayout starts an agent on what one has left whose maps have other
// fields than ours. It adopts none of these, and says so. What was established is
// judged anew, and goes on: not without a loss, as its packets are new to the agent
// while it gets ready.
func TestOtherLayout(t *testing.T) {
	for _, name := range []string{"flows", "endpoints"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, setup{})
			// Both directions of opening: what the agent sees first may be a reply.
			talk, back := p.talk(p.friend, p.server, 4, 80), p.talk(p.server, p.other, 6, 80)
			s4, s6 := p.podStream(p.friend, p.server, 4, 80), p.podStream(p.server, p.other, 6, 80)
			from4, from6, before := s4.mark(), s6.mark(), talk.retransmits()+back.retransmits()
			p.signal(unix.SIGTERM)
			p.repin(name)
			p.start()
			talk.say("with another layout")
			back.say("with another layout")
			s4.flows()
			s6.flows()
			mark4, mark6 := s4.mark(), s6.mark()
			t.Logf("lost %d of %d and %d of %d datagrams, %d segments sent again", len(s4.lost(from4, mark4, underWay)), mark4-from4,
				len(s6.lost(from6, mark6, underWay)), mark6-from6, talk.retransmits()+back.retransmits()-before)
			s4.after(20)
			s6.after(20)
			s4.intact("once it goes on", mark4)
			s6.intact("once it goes on", mark6)
			p.said("map=" + name)
			p.probeAll(append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)...)
		})
	}
}

// repin puts a map in a pinned one's place that is like it but for the name of a
// field.
func (n *node) repin(name string) {
	n.Helper()
	pin := fmt.Sprintf("/proc/self/fd/%d/maps/%s", n.bpffs, name)
	m, err := ebpf.LoadPinnedMap(pin, nil)
	must(n.T, err)
	defer m.Close()
	info, err := m.Info()
	must(n.T, err)
	value := &btf.Struct{Name: "other", Size: info.ValueSize, Members: []btf.Member{{Name: "bytes",
		Type: &btf.Array{Index: u32, Type: &btf.Int{Name: "unsigned char", Size: 1}, Nelems: info.ValueSize}}}}
	other, err := ebpf.NewMap(&ebpf.MapSpec{Name: info.Name, Type: info.Type, KeySize: info.KeySize, ValueSize: info.ValueSize,
		MaxEntries: info.MaxEntries, Flags: info.Flags, Key: keyOf(info), Value: value})
	must(n.T, err)
	defer other.Close()
	must(n.T, os.Remove(pin))
	must(n.T, other.Pin(pin))
}

var u32 = &btf.Int{Name: "unsigned int", Size: 4}

// keyOf is a type of the size of a map's keys: arrays want a number.
func keyOf(info *ebpf.MapInfo) btf.Type {
	if info.KeySize == 4 {
		return u32
	}
	return &btf.Array{Index: u32, Type: u32, Nelems: info.KeySize / 4}
}

// configFor leaves out of the configuration what is the default: an older agent
// refuses what it does not know.
func configFor(c control.Config) ([]byte, error) {
	fields := func(c control.Config) (map[string]any, error) {
		text, err := yaml.Marshal(c)
		if err != nil {
			return nil, err
		}
		m := make(map[string]any)
		return m, yaml.Unmarshal(text, &m)
	}
	mine, err := fields(c)
	if err != nil {
		return nil, err
	}
	defaults, err := fields(control.Default())
	if err != nil {
		return nil, err
	}
	for k, v := range defaults {
		if fmt.Sprint(mine[k]) == fmt.Sprint(v) {
			delete(mine, k)
		}
	}
	return yaml.Marshal(mine)
}
