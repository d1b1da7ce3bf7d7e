package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control/api"
)

// agentBPFFS is the descriptor by which the agent gets its bpffs.
const agentBPFFS = 3

// agent is a running agent.
type agent struct {
	cmd   *exec.Cmd
	stdin io.Closer
	log   lockedBuffer
	done  chan struct{} // closed when it has ended
	err   error         // of Wait
}

// lockedBuffer is written by the agent's pipe and read by the test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// command prepares the test binary to be an agent on the node.
func (n *node) command(extra ...string) *exec.Cmd {
	n.Helper()
	conf, err := configFor(n.cfg)
	must(n.T, err)
	must(n.T, os.WriteFile(n.confPath, conf, 0o644))
	exe := n.exe
	if exe == "" {
		exe, err = os.Executable()
		must(n.T, err)
	}
	dup, err := unix.FcntlInt(uintptr(n.bpffs), unix.F_DUPFD_CLOEXEC, 0)
	must(n.T, err)
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), configVar+"="+n.confPath, manifestsVar+"="+n.dir), extra...)
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup), "bpffs")} // becomes agentBPFFS
	return cmd
}

// start starts an agent and waits until it enforces what the manifests say.
func (n *node) start() {
	n.Helper()
	n.launch()
	n.settle()
}

// launch starts an agent.
func (n *node) launch() {
	n.Helper()
	cmd := n.command()
	defer cmd.ExtraFiles[0].Close()
	a := &agent{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &a.log, &a.log
	stdin, err := cmd.StdinPipe()
	must(n.T, err)
	a.stdin = stdin
	must(n.T, n.net.Host().Start(cmd))
	go func() {
		a.err = cmd.Wait()
		close(a.done)
	}()
	n.agent = a
	n.Cleanup(func() {
		if n.agent == a {
			n.explain()
		}
		_ = cmd.Process.Kill()
		<-a.done
		if log := a.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
			n.Errorf("agent's log:\n%s", log)
		}
	})
}

// said waits until the agent's log has a text: it says some things while it enforces
// already, and what it has said comes by a pipe.
func (n *node) said(text string) {
	n.Helper()
	n.eventually("the agent says "+text, func() bool { return containsLine(n.agent.log.String(), text) })
}

// signal sends the agent a signal, and waits for its end if that is one.
func (n *node) signal(s unix.Signal) {
	n.Helper()
	must(n.T, n.agent.cmd.Process.Signal(s))
	if s != unix.SIGKILL && s != unix.SIGTERM {
		return
	}
	select {
	case <-n.agent.done:
	case <-time.After(patience):
		n.Fatalf("agent still runs after %v", s)
	}
}

// stopped reports whether all of the agent's threads stand still.
func (a *agent) stopped() bool {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", a.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		return false
	}
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(stat), ") T ") {
			return false
		}
	}
	return true
}

// cleanup runs the agent's clean-up.
func (n *node) cleanup() {
	n.Helper()
	cmd := n.command(cleanupVar + "=1")
	defer cmd.ExtraFiles[0].Close()
	stdin, err := cmd.StdinPipe() // open until the end
	must(n.T, err)
	defer stdin.Close()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.net.Host().Run(cmd); err != nil {
		n.Fatalf("clean-up: %v: %s", err, out.String())
	}
}

// status asks the agent how it is.
func (n *node) status() api.Status {
	n.Helper()
	s, err := n.api.Status(n.Context())
	must(n.T, err)
	return s
}

// events returns what the API remembers, oldest first.
func (n *node) events() []api.Flow {
	n.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all []api.Flow
	err := n.api.Flows(ctx, n.cfg.History, false, nil, func(f *api.Flow) error {
		all = append(all, *f)
		return nil
	})
	must(n.T, err)
	return all
}

// event waits for an event that fits.
func (n *node) event(what string, fits func(*api.Flow) bool) (hit api.Flow) {
	n.Helper()
	n.eventually("event: "+what, func() (is bool) {
		hit, is = n.find(fits)
		return is
	})
	return hit
}

// find gives the oldest event that fits.
func (n *node) find(fits func(*api.Flow) bool) (api.Flow, bool) {
	n.Helper()
	for _, f := range n.events() {
		if fits(&f) {
			return f, true
		}
	}
	return api.Flow{}, false
}

// explain shows what the agent had to say if the test has failed.
func (n *node) explain() {
	if !n.Failed() {
		return
	}
	n.Logf("agent's log:\n%s", n.agent.log.String())
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := n.api.Status(ctx)
	if err == nil {
		n.Logf("drops %v, programs %v, flows %d, pending %v, notes %v", s.Drops, s.Programs, s.Flows, s.Pending, s.Notes)
	} else {
		n.Log(err)
	}
	flows := []string{}
	err = n.api.Flows(ctx, 40, false, nil, func(f *api.Flow) error {
		flows = append(flows, describe(f))
		return nil
	})
	n.Logf("last events (%v):", errors.Join(err))
	for _, f := range flows {
		n.Log(f)
	}
}

func describe(f *api.Flow) string {
	return fmt.Sprintf("%s %s %s %s %s:%d > %s:%d %s %s reply=%v %v %q", f.Time.Format("05.000"), f.Event, f.Hook, f.Proto,
		f.Src.Addr, f.Src.Port, f.Dst.Addr, f.Dst.Port, f.TCPFlags, f.Reason, f.Reply, f.DecidedBy, f.Text)
}
