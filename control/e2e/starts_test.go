package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// startsVar is how many pods TestPodStarts starts and stops: 1000 take minutes.
const startsVar = "SLUICE_E2E_STARTS"

// TestPodStarts starts and stops pods, sandbox and link and all, in waves, half of
// them with rights, under a steady stream. In the end nothing is left of them: no
// program, no address, no file of the agent's.
func TestPodStarts(t *testing.T) {
	t.Parallel()
	const wave = 20
	pods, err := strconv.Atoi(os.Getenv(startsVar))
	if err != nil {
		pods = 60
	}
	n := newPair(t, setup{})
	steady := n.podStream(n.friend, n.server, 4, 80)
	began := steady.mark()
	start := time.Now()
	pins, files, maps := len(n.linkPins()), 0, map[string]int{}
	for i := 0; i < pods; i += wave {
		var crowd []*pod
		for k := range wave {
			role := []string{"role: friend", "role: stranger"}[k%2]
			crowd = append(crowd, n.addPod(fmt.Sprintf("crowd-%d", i+k), 10+(i+k)%200, role))
		}
		n.settle()
		yes, no := crowd[i/wave%10*2], crowd[i/wave%10*2+1]
		n.probeAll(append(all(yes, n.server, 80, true)[:2], all(no, n.server, 80, false, "server")[:2]...)...)
		for _, p := range crowd {
			n.removePod(p)
		}
		n.settle()
		n.eventually("the wave is gone", func() bool { return len(n.endpoints()) == 3 && len(n.linkPins()) == pins })
		if i == 0 { // by now everything has been opened once
			files, maps = n.openFiles(), n.entries()
		}
	}
	t.Logf("%d pods started and stopped in %v", pods, time.Since(start).Round(time.Second))
	n.eventually("maps are as after the first wave", func() bool {
		for name, have := range n.entries() {
			if have != maps[name] {
				return false
			}
		}
		return true
	})
	// Connections of the API come and go, and so do searches for links.
	n.eventually("as many files are open as after the first wave", func() bool { return n.openFiles() <= files+5 })
	steady.intact("while pods started and stopped", began)
}

// openFiles is how many files the agent has open.
func (n *node) openFiles() int {
	n.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.agent.cmd.Process.Pid))
	must(n.T, err)
	return len(list)
}

// entries is how much is in the maps that tell of pods.
func (n *node) entries() map[string]int {
	n.Helper()
	s, err := n.api.FullStatus(n.Context())
	must(n.T, err)
	out := map[string]int{}
	for _, m := range s.Maps {
		switch m.Name {
		case "links", "own_addrs":
			out[m.Name] = m.Entries
		}
	}
	if len(out) != 2 {
		n.Errorf("maps: %+v", s.Maps)
	}
	return out
}
