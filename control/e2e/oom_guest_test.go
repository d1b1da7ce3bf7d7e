//go:build guest

// A control group of one's own is not to be had on every machine that runs tests.

package e2e_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOutOfMemory has the kernel kill the agent because its control group has no
// memory left. What is established goes on, what is new is dropped, and the next
// agent takes over.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	needPriv(t)
	root := t.TempDir()
	must(t, unix.Mount("cgroup2", root, "cgroup2", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	put := func(file, text string) { must(t, os.WriteFile(filepath.Join(root, file), []byte(text), 0o644)) }
	put("cgroup.subtree_control", "+memory")
	group := filepath.Join(root, "agent")
	must(t, os.Mkdir(group, 0o755))
	t.Cleanup(func() { must(t, os.Remove(group)) })

	p := newPair(t, setup{})
	talk := p.talk(p.friend, p.server, 4, 80)
	s := p.podStream(p.friend, p.server, 6, 80)
	began := s.mark()
	put("agent/cgroup.procs", strconv.Itoa(p.agent.cmd.Process.Pid))
	put("agent/memory.max", "1M") // what is charged to the group from now on
	for i := 0; i < 500 && p.agent.running(); i++ {
		p.write("filler", "apiVersion: v1\nkind: Namespace\nmetadata: {name: y, annotations: {filler: "+strings.Repeat("x", 100_000+i)+"}}\n")
		_, _ = p.api.Status(t.Context())
	}
	p.eventually("the kernel kills the agent", func() bool { return !p.agent.running() })
	if status, ok := p.agent.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != unix.SIGKILL {
		t.Errorf("the agent ended with %v", p.agent.err)
	}
	events, err := os.ReadFile(filepath.Join(group, "memory.events"))
	must(t, err)
	if strings.Contains(string(events), "oom_kill 0") {
		t.Errorf("not for want of memory: %s", events)
	}
	talk.say("without an agent")
	s.after(100)
	p.probeAll(&probe{proto: "tcp", from: p.friend.Namespace(), src: p.friend.v4, dst: p.server.v4, dport: 80, pass: false})
	p.remove("filler")
	p.start()
	talk.say("with the next agent")
	s.intact("over all", began)
	p.probeAll(append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)...)
}

func (a *agent) running() bool {
	select {
	case <-a.done:
		return false
	default:
		return true
	}
}
