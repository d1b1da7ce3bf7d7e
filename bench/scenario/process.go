package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child in the host's namespace that belongs to a system.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended, valid after done
}

// A process that is asked to end gets the one, one that starts the other.
const (
	endPatience   = 5 * time.Second
	startPatience = 20 * time.Second
)

// loopCPU is where a system's one loop runs: away from the sender, which is on CPU 0.
func loopCPU() int { return runtime.NumCPU() - 1 }

// startProcess starts one of this binary's own commands.
func startProcess(s *Stage, args ...string) (*process, error) {
	return startProgram(s, s.self, args...)
}

// startProgram starts a program in the host's namespace. The child ends with
// this process, however that ends: the kernel signals it when the thread that
// forked it does, so that thread stays until the child has gone.
func startProgram(s *Stage, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir, p.cmd.Env = s.log, s.log, "/", s.env()
	// Ctrl-C at a terminal is for the runner, which ends its children in order.
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := s.Net.Host().Enter()
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s %s: %w", filepath.Base(program), strings.Join(args, " "), err)
	}
	return p, nil
}

// settled returns when ready does, or an error if the process ends before, or
// does not get ready for long.
func (p *process) settled(ctx context.Context, s *Stage, ready func() bool) error {
	for end := time.Now().Add(startPatience); ; {
		if ready() {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %v\n%s", filepath.Base(p.cmd.Path), p.err, s.tail())
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready after %v\n%s", filepath.Base(p.cmd.Path), startPatience, s.tail())
		}
	}
}

// env has programs keep their files in the stage's folder.
func (s *Stage) env() []string {
	return append(os.Environ(), "RUNTIME_DIRECTORY="+s.dir, "OVS_RUNDIR="+s.dir, "OVS_LOGDIR="+s.dir, "OVS_DBDIR="+s.dir)
}

// logged reports whether the log of the stage has a text in it.
func (s *Stage) logged(text string) bool { return strings.Contains(s.tail(), text) }

// run runs a program in the host's namespace to its end.
func (s *Stage) run(ctx context.Context, stdin, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(stdin), &out, &out, s.env()
	if err := s.Net.Host().Run(cmd); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// needs says which of some programs this machine lacks, and where they are from.
func needs(pkg string, programs ...string) func() error {
	return func() error {
		for _, p := range programs {
			if _, err := exec.LookPath(p); err != nil {
				return fmt.Errorf("no %s on this machine (Debian: %s)", p, pkg)
			}
		}
		return nil
	}
}

// versionOf asks a program for its version: the first line that it writes.
func versionOf(name string, args ...string) func() string {
	return func() string {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return "unknown"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
}

func (p *process) stop() error {
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop process %d: %w", p.cmd.Process.Pid, err)
		}
		select {
		case <-p.done:
			return nil
		case <-time.After(endPatience):
		}
	}
	return fmt.Errorf("stop process %d: it doesn't end", p.cmd.Process.Pid)
}

// cpuTime is what a process, or a CPU, has spent.
type cpuTime struct{ user, system time.Duration }

// tick is the unit of /proc, USER_HZ: 100 on every architecture that Go has.
const tick = 10 * time.Millisecond

// usage reads the time that all threads of the process have spent.
func (p *process) usage() (cpuTime, error) {
	path := fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return cpuTime{}, fmt.Errorf("read CPU time: %w", err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return cpuTime{}, fmt.Errorf("read CPU time: %s is short", path)
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return cpuTime{time.Duration(user) * tick, time.Duration(system) * tick}, errors.Join(err1, err2)
}

// inMemory copies a program to a file that has no name and goes with this
// process, and returns a path to run it by.
func inMemory(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	fd, err := unix.MemfdCreate(filepath.Base(path), unix.MFD_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("create file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), path) // open until this process ends
	if _, err := f.Write(data); err != nil {
		return "", errors.Join(fmt.Errorf("write program to memory: %w", err), f.Close())
	}
	programs = append(programs, f)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), nil
}

// programs keeps files in memory from being closed by the garbage collector.
var programs []*os.File
