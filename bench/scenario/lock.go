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

// stageName is bench-PID, or bench-PID-LANE.
func stageName(pid, lane int) string {
	name := stagePrefix + strconv.Itoa(pid)
	if lane > 0 {
		name += "-" + strconv.Itoa(lane)
	}
	return name
}

func stageDir(name string) string { return filepath.Join(runDir, name) }

// stagePID is the process behind the name of a stage, 0 if it is none.
func stagePID(name string) int {
	rest, ok := strings.CutPrefix(name, stagePrefix)
	number, _, _ := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil {
		return 0
	}
	return pid
}

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
	dead := map[string]bool{}
	note := func(name string) {
		if pid := stagePID(name); pid > 0 && unix.Kill(pid, 0) == unix.ESRCH {
			dead[name] = true
		}
	}
	for _, space := range spaces {
		name, _, _ := strings.Cut(strings.TrimPrefix(space, "sluice-"), "--") // see netlab.Prefix
		note(name)
	}
	for _, dir := range dirs {
		note(filepath.Base(dir))
	}
	for name := range dead {
		dir := stageDir(name)
		if err := unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
			errs = append(errs, fmt.Errorf("unmount bpffs of %s: %w", name, err))
			continue // don't delete through a mount
		}
		errs = append(errs, netlab.Sweep(name), os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
