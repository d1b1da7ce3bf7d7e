package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// A process that is asked to end gets this long.
const endPatience = 3 * time.Second

// clean removes everything that belongs to a lab but its lock: processes,
// namespaces with their links and programs, the mount, files. The caller holds
// the lock. What is not there is no error.
func clean(name string) error {
	errs := []error{endProcesses(name), netlab.Sweep(name), unlinkHubble(name)}
	if err := unmountAll(bpfDir(name)); err != nil {
		return errors.Join(append(errs, err)...) // don't delete through a mount
	}
	if err := os.RemoveAll(dirOf(name)); err != nil {
		errs = append(errs, fmt.Errorf("remove state of lab %s: %w", name, err))
	}
	return errors.Join(errs...)
}

// endProcesses ends the agent and whatever else lives in the namespaces.
func endProcesses(name string) error {
	spaces, err := netlab.Namespaces(netlab.Prefix(name))
	if err != nil {
		return err
	}
	list := func() ([]int, error) {
		pids, err := netlab.Processes(spaces)
		if pid := readAgentPID(name); pid != 0 && processAlive(pid) {
			pids = append(pids, pid)
		}
		return pids, err
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		pids, err := list()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			unix.Kill(pid, sig) // gone already is as good
		}
		for end := time.Now().Add(endPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if pids, err = list(); err != nil || len(pids) == 0 {
				return err
			}
		}
	}
	return fmt.Errorf("lab %s: processes don't end", name)
}

func agentPIDPath(name string) string { return filepath.Join(dirOf(name), "agent.pid") }

// writeAgentPID records the agent with its time of start, which tells it from
// a later process of the same number.
func writeAgentPID(name string, pid int) error {
	return os.WriteFile(agentPIDPath(name), fmt.Appendf(nil, "%d %s", pid, startTime(pid)), 0o600)
}

// readAgentPID returns the recorded agent if that very process exists.
func readAgentPID(name string) int {
	b, err := os.ReadFile(agentPIDPath(name))
	if err != nil {
		return 0
	}
	first, started, ok := bytes.Cut(b, []byte(" "))
	pid, err := strconv.Atoi(string(first))
	if !ok || err != nil || len(started) == 0 || startTime(pid) != string(started) {
		return 0
	}
	return pid
}

// startTime is field 22 of /proc/PID/stat (proc_pid_stat(5)), "" for none.
func startTime(pid int) string {
	if f := statFields(pid); len(f) > 19 {
		return string(f[19])
	}
	return ""
}

// processAlive reports whether a process runs; one that its parent has not
// waited for doesn't.
func processAlive(pid int) bool {
	f := statFields(pid)
	return len(f) > 0 && string(f[0]) != "Z" && string(f[0]) != "X"
}

// statFields returns the fields after the command's name, the state first.
func statFields(pid int) [][]byte {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
}

func unmountAll(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH)
		if err == unix.EINVAL || err == unix.ENOENT {
			return nil // not, or no longer, a mount
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// janitor is a process of its own session that waits until this one is gone, for
// whatever reason, and cleans up what is left of the lab. It is there before
// anything of the lab is.
type janitor struct {
	cmd *exec.Cmd
	in  io.WriteCloser // ends with this process
}

func startJanitor(self, name string) (*janitor, error) {
	cmd := exec.Command(self, "lab", "janitor", name)
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start janitor of lab %s: %w", name, err)
	}
	return &janitor{cmd, in}, nil
}

// dismiss tells the janitor that nothing is left, and waits for it.
func (j *janitor) dismiss() error {
	_, err := j.in.Write([]byte{0})
	return errors.Join(err, j.in.Close(), j.cmd.Wait())
}

// Janitor waits for the owner of a lab to go, which holds the other end of in, and
// cleans up after it. An owner that goes in order says so.
func Janitor(name string, in io.Reader) error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP) // it ends with its work
	if n, _ := in.Read(make([]byte, 1)); n > 0 {
		return nil
	}
	r, err := lockRun(name, os.O_RDWR, unix.F_OFD_SETLKW)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(clean(name), r.release())
}
