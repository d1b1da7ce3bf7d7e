package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control"
)

// TestWorkerCPUs ties workers to CPUs: one to each, in turns; one whose CPU is not
// to be had runs on any.
func TestWorkerCPUs(t *testing.T) {
	t.Parallel()
	p := newPair(t, setup{change: func(c *control.Config) { c.Workers, c.WorkerCPUs = 3, "0,4095" }})
	talk := p.talk(p.friend, p.server, 4, 80)
	talk.say("with workers on CPUs of their own")
	for i, w := range p.status().Workers {
		if tied := w.CPU != nil && *w.CPU == 0; tied != (i != 1) || !w.Alive {
			t.Errorf("worker %d: CPU %v, alive %v", i, w.CPU, w.Alive)
		}
	}
	if n := p.threadsOn("0"); n != 2 && runtime.NumCPU() > 1 {
		t.Errorf("%d threads of the agent are tied to CPU 0, want those of two workers", n)
	}
	p.said("cpu=4095") // the CPU that is not to be had
}

var allowedList = regexp.MustCompile(`(?m)^Cpus_allowed_list:\s*(.*)$`)

// threadsOn counts the agent's threads that may run on these CPUs only.
func (n *node) threadsOn(cpus string) (count int) {
	n.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", n.agent.cmd.Process.Pid))
	must(n.T, err)
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		if m := allowedList.FindSubmatch(text); m != nil && strings.TrimSpace(string(m[1])) == cpus {
			count++
		}
	}
	return count
}
