package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-net/sluice/tools/lab"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

// detached brings a lab up in the background and takes it down at the end.
func detached(t *testing.T, args ...string) (name, dir string) {
	t.Helper()
	labtest.NeedRoot(t)
	name, dir = lab.UniqueName("t"), t.TempDir()
	write(t, dir, "pods.yaml", podYAML("x", "a", "10.0.0.1")+podYAML("x", "b", "10.0.0.2"))
	args = append([]string{"lab", "up", "-f", dir, "--detach", "--name", name}, args...)
	if code, _, stderr := labtest.Run(t, args...); code != 0 {
		t.Fatalf("lab up: exit code %d: %s", code, stderr)
	}
	t.Cleanup(func() {
		exec.Command(labtest.Binary(t), "lab", "down", "--name", name).Run() // gone already, in some tests
		labtest.Gone(t, name)
	})
	return name, dir
}

type status struct {
	lab.State
	Agent struct {
		Ready bool
		PID   int
	}
}

func statusOf(t *testing.T, name string) status {
	t.Helper()
	code, out, stderr := labtest.Run(t, "lab", "status", "--name", name, "-o", "json")
	if code != 0 {
		t.Fatalf("lab status: exit code %d: %s", code, stderr)
	}
	var s status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *status) has(pod string) bool {
	for _, p := range s.Pods {
		if p.Namespace+"/"+p.Name == pod {
			return true
		}
	}
	return false
}

func TestDetachedLab(t *testing.T) {
	name, dir := detached(t)
	if s := statusOf(t, name); !s.Agent.Ready || !s.has("x/a") || !s.has("x/b") {
		t.Errorf("status: %+v", s)
	}
	if code, _, stderr := labtest.Run(t, "lab", "up", "-f", dir, "--name", name); code != 1 || !strings.Contains(stderr, "is up") {
		t.Errorf("second lab of the name: exit code %d: %s", code, stderr)
	}
	for _, c := range []struct {
		args []string
		code int
		out  string
	}{
		{[]string{"x/a", "--", "cat", "/proc/sys/net/ipv4/ip_forward"}, 0, "0\n"},
		{[]string{"host", "--", "cat", "/proc/sys/net/ipv4/ip_forward"}, 0, "1\n"},
		{[]string{"x/a", "--", "sh", "-c", "exit 7"}, 7, ""},
		{[]string{"x/a", "--", "sh", "-c", "kill -9 $$"}, -1, ""},
		{[]string{"x/nobody", "--", "true"}, 2, ""},
		{[]string{"x/a"}, 2, ""},
		{[]string{"x/a", "--", "no-such-command"}, 1, ""},
	} {
		code, out, stderr := labtest.Run(t, append([]string{"lab", "exec", "--name", name}, c.args...)...)
		if code != c.code || out != c.out {
			t.Errorf("exec %v: exit code %d, output %q (%s), want %d, %q", c.args, code, out, stderr, c.code, c.out)
		}
	}
	// Edits take effect beside us.
	write(t, dir, "late.yaml", podYAML("z", "late", ""))
	eventually(t, "a pod is added", func() bool { s := statusOf(t, name); return s.has("z/late") })
	if err := os.Remove(filepath.Join(dir, "late.yaml")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a pod is removed", func() bool { s := statusOf(t, name); return !s.has("z/late") })
	if code, _, stderr := labtest.Run(t, "lab", "down", "--name", name); code != 0 {
		t.Errorf("lab down: exit code %d: %s", code, stderr)
	}
	labtest.Gone(t, name)
	if code, _, _ := labtest.Run(t, "lab", "down", "--name", name); code != 1 {
		t.Errorf("lab down of no lab: exit code %d", code)
	}
}

// TestLabsBesideEachOther probes on a lab of its own while another one with
// the same pods is up.
func TestLabsBesideEachOther(t *testing.T) {
	name, dir := detached(t)
	queries := filepath.Join(t.TempDir(), "queries.jsonl")
	write(t, filepath.Dir(queries), filepath.Base(queries), `{"src":"x/a","dst":"x/b","proto":"TCP","port":80,"want":"allow"}`)
	code, out, stderr := labtest.Run(t, "lab", "probe", "-f", dir, "--queries", queries, "-o", "jsonl")
	want := `{"src":"x/a","dst":"x/b","proto":"TCP","port":80,"verdict":"allow","seen":"connected, echoed","decidedBy":[]}` + "\n"
	if code != 0 || out != want {
		t.Errorf("probe: exit code %d: %s\n%s", code, out, stderr)
	}
	if s := statusOf(t, name); !s.Agent.Ready {
		t.Error("the other lab is no longer ready")
	}
}

func TestProbeExitCodes(t *testing.T) {
	labtest.NeedRoot(t)
	dir := t.TempDir()
	write(t, dir, "pods.yaml", podYAML("x", "a", "10.0.0.1")+podYAML("x", "b", "10.0.0.2"))
	for _, c := range []struct {
		query  string
		expect bool
		code   int
	}{
		{`{"src":"x/a","dst":"x/b","proto":"TCP","port":80,"want":"allow","more":1}`, true, 0},
		{`{"src":"x/a","dst":"x/b","proto":"TCP","port":80,"want":"deny"}`, true, 1},
		{`{"src":"x/a","dst":"x/b","proto":"TCP","port":80,"want":"deny"}`, false, 0},
		{`{"src":"x/a","dst":"x/nobody","proto":"TCP","port":80}`, false, 2},
		{`not a query`, false, 2},
	} {
		queries := filepath.Join(t.TempDir(), "q")
		write(t, filepath.Dir(queries), "q", c.query)
		args := []string{"lab", "probe", "-f", dir, "--queries", queries, "-o", "jsonl", fmt.Sprintf("--expect=%v", c.expect)}
		code, out, stderr := labtest.Run(t, args...)
		if code != c.code || strings.Count(out, "\n") != 1 || (code == 2) != strings.Contains(out, `"error":`) {
			t.Errorf("%s: exit code %d, want %d: %s%s", c.query, code, c.code, out, stderr)
		}
	}
	for _, args := range [][]string{
		{"lab", "probe", "-f", dir},
		{"lab", "probe", "-f", dir, "--queries", "/does/not/exist"},
		{"lab", "probe", "--queries", "-"},
		{"lab", "up", "-f", "/does/not/exist"},
		{"lab", "up", "-f", dir, "--cni=ring"},
		{"lab", "up", "-f", dir, "--offload=maybe"},
		{"lab", "up", "-f", dir, "--name=a--b"},
		{"lab", "up", "-f", dir, "--mtu=1"},
		{"lab", "nothing"},
	} {
		if code, _, stderr := labtest.Run(t, args...); code != 2 || stderr == "" {
			t.Errorf("%v: exit code %d, want 2: %s", args, code, stderr)
		}
	}
}

// TestOwnerKilled sees that a janitor cleans up after an owner that could not.
func TestOwnerKilled(t *testing.T) {
	name, _ := detached(t)
	kill(t, statusOf(t, name).PID)
	labtest.Gone(t, name)
}

// TestOwnerAndJanitorKilled sees that the next command cleans up after both.
func TestOwnerAndJanitorKilled(t *testing.T) {
	name, _ := detached(t)
	s := statusOf(t, name)
	kill(t, janitorOf(t, name))
	kill(t, s.PID)
	if code, _, stderr := labtest.Run(t, "lab", "down", "--name", name); code != 0 {
		t.Errorf("lab down: exit code %d: %s", code, stderr)
	}
	labtest.Gone(t, name)
}

// TestAgentKilled sees that the lab gets another agent.
func TestAgentKilled(t *testing.T) {
	name, _ := detached(t)
	first := statusOf(t, name).Agent.PID
	kill(t, first)
	eventually(t, "a new agent is ready", func() bool {
		s := statusOf(t, name)
		return s.Agent.Ready && s.Agent.PID != first && s.AgentPID == s.Agent.PID
	})
}

// TestProcessesEnd sees that what runs in a pod doesn't outlive its lab.
func TestProcessesEnd(t *testing.T) {
	name, _ := detached(t)
	cmd := exec.Command(labtest.Binary(t), "lab", "exec", "--name", name, "x/a", "--", "sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	eventually(t, "sleep runs", func() bool {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return string(b) == "sleep\n"
	})
	if code, _, stderr := labtest.Run(t, "lab", "down", "--name", name); code != 0 {
		t.Errorf("lab down: exit code %d: %s", code, stderr)
	}
	if err := <-ended; err == nil {
		t.Error("sleep ended by itself")
	}
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

func janitorOf(t *testing.T, name string) int {
	t.Helper()
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, _ := os.ReadFile(path)
		if strings.HasSuffix(string(b), "\x00lab\x00janitor\x00"+name+"\x00") {
			var pid int
			if _, err := fmt.Sscanf(path, "/proc/%d/cmdline", &pid); err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("there is no janitor")
	return 0
}
