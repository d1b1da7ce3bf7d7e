package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// What a process leaves carries its number, so that another can tell whether
// it is still in use.
const runDir = "/run/sluice"

const stagePrefix = "bench-"

func stageName(pid int) string { return stagePrefix + strconv.Itoa(pid) }
func stageDir(pid int) string  { return filepath.Join(runDir, stageName(pid)) }

// lock waits until no other benchmark runs on this machine.
func (p Plan) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("create folder of the lock: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(runDir, "bench.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil // the file stays: others may wait for it
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
		}
		if p.Waiting != nil {
			p.Waiting()
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return nil, errors.Join(fmt.Errorf("wait for another benchmark to end: %w", err), f.Close())
		}
	}
}

// sweepDead removes what benchmarks that were killed have left.
func sweepDead() error {
	spaces, err := netlab.Namespaces("sluice-" + stagePrefix)
	errs := []error{err}
	dirs, _ := filepath.Glob(filepath.Join(runDir, stagePrefix+"*")) // the pattern is well-formed
	pids := map[int]bool{}
	for _, name := range append(spaces, dirs...) {
		_, rest, _ := strings.Cut(filepath.Base(name), stagePrefix)
		number, _, _ := strings.Cut(rest, "-")
		if pid, err := strconv.Atoi(number); err == nil && unix.Kill(pid, 0) == unix.ESRCH {
			pids[pid] = true
		}
	}
	for pid := range pids {
		dir := stageDir(pid)
		if err := unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("unmount bpffs of benchmark %d: %w", pid, err))
			continue // don't delete through a mount
		}
		errs = append(errs, netlab.Sweep(stageName(pid)), os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
