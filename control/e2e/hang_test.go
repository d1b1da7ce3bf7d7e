package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hangWorker stops the thread of the agent's only worker, as a debugger does,
// and nothing else of it. release lets it go on.
func (n *node) hangWorker() (release func()) {
	n.Helper()
	hung, let, gone := make(chan error), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		runtime.LockOSThread() // ptrace is a matter between threads
		defer runtime.UnlockOSThread()
		tid, err := n.seizeWorker()
		hung <- err
		if err != nil {
			return
		}
		<-let
		_ = unix.PtraceDetach(tid)
	}()
	must(n.T, <-hung)
	released := false
	release = func() {
		if !released {
			released = true
			close(let)
			<-gone
		}
	}
	n.Cleanup(release)
	return release
}

// seizeWorker stops the worker's thread: the one that sleeps in ppoll, which
// nothing else of a Go program calls.
func (n *node) seizeWorker() (tid int, err error) {
	tid = -1
	n.eventually("worker sleeps", func() bool {
		calls, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", n.agent.cmd.Process.Pid))
		for _, f := range calls {
			text, err := os.ReadFile(f)
			number, _, _ := strings.Cut(string(text), " ")
			if err == nil && number == strconv.Itoa(unix.SYS_PPOLL) {
				tid, _ = strconv.Atoi(filepath.Base(filepath.Dir(f)))
			}
		}
		return tid > 0
	})
	if err := unix.PtraceSeize(tid); err != nil {
		return tid, fmt.Errorf("seize thread %d: %w", tid, err)
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		return tid, fmt.Errorf("interrupt thread %d: %w", tid, err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err != nil {
		return tid, fmt.Errorf("wait for thread %d: %w", tid, err)
	}
	return tid, nil
}
