package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// StateDir holds a folder and a lock file for each lab.
const StateDir = "/run/sluice/lab"

const lockSuffix = ".lock"

// ErrRunning says that a lab of the name is up.
var ErrRunning = errors.New("a lab of this name is up")

// run is the exclusive right to a lab's name, with everything that belongs to
// it. The kernel takes the right from a process that dies: whoever gets it
// next, the janitor in the first place, finds what is to be cleaned up.
type run struct {
	name string
	lock *os.File
}

func dirOf(name string) string      { return filepath.Join(StateDir, name) }
func lockPath(name string) string   { return dirOf(name) + lockSuffix }
func bpfDir(name string) string     { return filepath.Join(dirOf(name), "bpf") }
func socketPath(name string) string { return filepath.Join(dirOf(name), "sluice.sock") }

func hubblePath(name string) string { return filepath.Join(dirOf(name), "hubble.sock") }

// acquire takes the name of a lab and cleans up what an earlier, dead lab of
// the name has left.
func acquire(name string) (*run, error) {
	if err := netlab.CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create %s: %w", StateDir, err)
	}
	r, err := lockRun(name, os.O_RDWR|os.O_CREATE, unix.F_OFD_SETLK)
	if err != nil {
		return nil, err
	}
	if err := clean(name); err != nil {
		return nil, errors.Join(err, r.release())
	}
	return r, nil
}

// lockRun opens and locks the lock file, with how F_OFD_SETLK or, to wait for
// it, F_OFD_SETLKW. Locks of open file descriptions end with the process, and
// asking for one disturbs nobody.
func lockRun(name string, flags, how int) (*run, error) {
	for {
		f, err := os.OpenFile(lockPath(name), flags, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock of lab %s: %w", name, err)
		}
		for {
			err = unix.FcntlFlock(f.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK})
			if err != unix.EINTR {
				break
			}
		}
		if err != nil {
			f.Close()
			if err == unix.EAGAIN || err == unix.EACCES {
				return nil, fmt.Errorf("lab %s: %w", name, ErrRunning)
			}
			return nil, fmt.Errorf("lock lab %s: %w", name, err)
		}
		if isCurrent(f, lockPath(name)) {
			return &run{name: name, lock: f}, nil
		}
		f.Close() // its last owner has removed it meanwhile
	}
}

func isCurrent(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	current, err := os.Stat(path)
	return err == nil && os.SameFile(mine, current)
}

// release gives the name up. The lock file goes while it is still locked.
func (r *run) release() error {
	err := errors.Join(os.Remove(lockPath(r.name)), r.lock.Close())
	// Folders that others still use stay.
	os.Remove(StateDir)
	os.Remove(filepath.Dir(StateDir))
	return err
}

// alive reports whether a process owns the lab.
func alive(name string) bool {
	f, err := os.Open(lockPath(name))
	if err != nil {
		return false
	}
	defer f.Close()
	ask := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &ask) == nil && ask.Type != unix.F_UNLCK
}

// names lists all labs that have left any trace below StateDir.
func names() ([]string, error) {
	entries, err := os.ReadDir(StateDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var all []string
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), lockSuffix)
		if netlab.CheckName(name) == nil && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all, nil
}

// SweepDead cleans up after all labs that ended without doing it themselves.
// It leaves live ones alone.
func SweepDead() error {
	all, err := names()
	errs := []error{err}
	for _, name := range all {
		if alive(name) {
			continue
		}
		r, err := acquire(name)
		if errors.Is(err, ErrRunning) {
			continue // it has just come up, or its janitor is at work
		}
		if err == nil {
			err = r.release()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tail returns the last lines of a file, for messages.
func tail(path string, maxBytes int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, size-maxBytes), io.SeekStart)
	}
	b, _ := io.ReadAll(f)
	return strings.TrimSpace(string(b))
}
