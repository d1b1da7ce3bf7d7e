package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control"
)

// TestPodChurn starts and stops six hundred pods on the links of twenty: each wave
// has other pods, with other rights, in the place of those before, as when a
// runtime gives a sandbox's address out again. Slots are given out again and
// again, and a steady stream does not notice.
func TestPodChurn(t *testing.T) {
	t.Parallel()
	const waves, crowd = 30, 20
	n := newPair(t, setup{change: func(c *control.Config) { c.MaxPods = 30 }})
	steady := n.podStream(n.friend, n.server, 4, 80)
	began := steady.mark()
	start := time.Now()
	var pods []*pod
	for i := range crowd {
		pods = append(pods, n.addPod(fmt.Sprintf("crowd-%d", i), 10+i, "role: friend"))
	}
	for wave := range waves {
		for i, p := range pods {
			role := "friend"
			if (i+wave)%2 == 1 {
				role = "stranger"
			}
			n.write("pod-"+p.name, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: x, uid: %s-%d, labels: {role: %s}}\n"+
				"spec: {nodeName: node}\nstatus: {phase: Running, podIPs: [{ip: %s}, {ip: %q}]}\n", p.name, p.name, wave, role, p.v4, p.v6))
		}
		n.settle()
		if wave%5 == 0 {
			yes, no := pods[wave%2], pods[1-wave%2]
			n.probeAll(append(all(yes, n.server, 80, true)[:2], all(no, n.server, 80, false, "server")[:2]...)...)
		}
		if got := len(n.endpoints()); got != crowd+3 {
			t.Fatalf("wave %d: %d endpoints, want %d", wave, got, crowd+3)
		}
	}
	t.Logf("%d pods started and stopped in %v", waves*crowd, time.Since(start).Round(time.Second))
	for _, p := range pods {
		n.removePod(p)
	}
	n.eventually("pods are gone", func() bool { return len(n.endpoints()) == 3 })
	steady.intact("while pods came and went", began)
}

// TestPodsFirst boots a node whose pods talk before there is an agent. What
// policy allows goes on, what it forbids ends.
func TestPodsFirst(t *testing.T) {
	t.Parallel()
	n := newNode(t, setup{noAgent: true})
	p := &pair{node: n, server: n.addPod("server", 1, "app: server"),
		friend: n.addPod("friend", 2, "role: friend"), other: n.addPod("other", 3, "role: other")}
	n.serveBoth(p.server, 80)
	good, bad := p.talk(p.friend, p.server, 4, 80), p.talk(p.other, p.server, 6, 80)
	s := n.podStream(p.friend, p.server, 6, 80)
	n.policy("server", allowFrom("role: friend", "[{port: 80, protocol: TCP}, {port: 80, protocol: UDP}]"))
	n.start()
	good.say("with an agent")
	s.flows()
	from := s.mark()
	s.after(50)
	s.intact("with an agent", from)
	bad.cut("with an agent")
	p.probeAll(append(all(p.friend, p.server, 80, true), all(p.other, p.server, 80, false, "server")...)...)
}

// TestFewFrames has more traffic than frames: nothing is lost for good.
func TestFewFrames(t *testing.T) {
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			n := newPair(t, setup{change: func(c *control.Config) { c.Offload, c.Frames = offload, 256 }})
			talk := n.talk(n.friend, n.server, 4, 80)
			for range 5 {
				// All of it waits for a worker that stands still.
				n.signal(unix.SIGSTOP)
				n.eventually("agent stands still", n.agent.stopped)
				n.spray(n.friend, n.other, 600)
				n.spray(n.other, n.server, 600)
				n.signal(unix.SIGCONT)
				talk.say("after the flood")
			}
			n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
		})
	}
}

// TestDiskFull runs an agent whose disk has no room for a byte. It enforces, and
// so does its successor.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	disk := fullDisk(t)
	n := newPair(t, setup{change: func(c *control.Config) {
		c.Socket, c.Hubble.Socket = filepath.Join(disk, "api.sock"), filepath.Join(disk, "hubble.sock")
	}})
	fill(t, disk)
	s := n.podStream(n.friend, n.server, 4, 80)
	began := s.mark()
	n.probeAll(append(all(n.friend, n.server, 80, true), all(n.other, n.server, 80, false, "server")...)...)
	late := n.addPod("late", 4, "role: friend")
	n.settle()
	n.probeAll(all(late, n.server, 80, true)...)
	n.signal(unix.SIGKILL)
	n.start()
	n.allow("role: other")
	n.probeAll(append(all(n.other, n.server, 80, true), all(late, n.server, 80, false, "server")...)...)
	n.allow("role: friend")
	s.flows()
	if lost := s.lost(began, began+1, patience/6); len(lost) > 0 {
		t.Errorf("the stream lost its first datagram")
	}
}

// fullDisk mounts a small tmpfs where only this test can see it by name.
func fullDisk(t *testing.T) string {
	t.Helper()
	needPriv(t)
	dir, err := os.MkdirTemp("", "sluice-"+runName(int(nodes.Add(1)))+"-")
	must(t, err)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,nr_inodes=32"))
	t.Cleanup(func() {
		must(t, unix.Unmount(dir, unix.MNT_DETACH))
		must(t, os.RemoveAll(dir))
	})
	return dir
}

// fill writes until the disk is full.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}
