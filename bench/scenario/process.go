package scenario

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// A process that is asked to end gets this long.
const endPatience = 5 * time.Second

// startProcess starts one of this binary's own commands. The child ends with
// this process, however that ends: the kernel signals it when the thread that
// forked it does, so that thread stays until the child has gone.
func startProcess(s *Stage, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(s.self, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = s.log, s.log, "/"
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
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	return p, nil
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
