package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// RunDir is where named network namespaces are kept, as ip-netns(8) does.
const RunDir = "/run/netns"

// Namespace is a named network namespace, visible to "ip netns".
type Namespace struct {
	name string
	fd   netns.NsHandle
}

// CreateNamespace makes a network namespace, names it, and brings its loopback
// up.
func CreateNamespace(name string) (_ *Namespace, err error) {
	if err := shareRunDir(); err != nil {
		return nil, fmt.Errorf("create %s: %w", RunDir, err)
	}
	path := filepath.Join(RunDir, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	f.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, DeleteNamespace(name))
		}
	}()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network: %w", err)
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	})
	if err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	ns, err := OpenNamespace(name)
	if err != nil {
		return nil, err
	}
	err = ns.withNetlink(func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	if err != nil {
		ns.fd.Close()
		return nil, fmt.Errorf("bring up loopback of %s: %w", name, err)
	}
	return ns, nil
}

// shareRunDir makes RunDir a shared mount, as ip-netns(8) does for its first
// namespace and leaves it. If that did it later, it would bind RunDir onto
// itself, above the namespaces that are there, whose names could then not be
// removed any more.
func shareRunDir() error {
	if err := os.MkdirAll(RunDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(RunDir)
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	err = unix.Mount("", RunDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if err != unix.EINVAL {
		return err // nil: it is a mount of its own
	}
	if err := unix.Mount(RunDir, RunDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind onto itself: %w", err)
	}
	return unix.Mount("", RunDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// OpenNamespace opens a named network namespace that exists.
func OpenNamespace(name string) (*Namespace, error) {
	fd, err := netns.GetFromPath(filepath.Join(RunDir, name))
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", name, err)
	}
	return &Namespace{name: name, fd: fd}, nil
}

// Name returns the name under RunDir.
func (ns *Namespace) Name() string { return ns.name }

// Close releases the handle. The namespace itself stays until it is deleted.
func (ns *Namespace) Close() error { return ns.fd.Close() }

// Do runs f on an OS thread inside the namespace. Sockets that f opens and
// processes that it starts belong to the namespace for good. f must not start
// goroutines that rely on the namespace.
func (ns *Namespace) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := ns.Enter(); err != nil {
			return err
		}
		return f()
	})
}

// Start starts cmd inside the namespace.
func (ns *Namespace) Start(cmd *exec.Cmd) error { return ns.Do(cmd.Start) }

// Run starts cmd inside the namespace and waits for it.
func (ns *Namespace) Run(cmd *exec.Cmd) error {
	if err := ns.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Enter moves the calling thread into the namespace for good; the caller has
// locked its goroutine to it. The thread must end with the goroutine.
func (ns *Namespace) Enter() error {
	if err := netns.Set(ns.fd); err != nil {
		return fmt.Errorf("enter namespace %s: %w", ns.name, err)
	}
	return nil
}

// Exec replaces this process by path, run inside the namespace. It returns
// only if that was not possible.
func (ns *Namespace) Exec(path string, argv, env []string) error {
	runtime.LockOSThread() // execve keeps the namespace of the calling thread
	if err := ns.Enter(); err != nil {
		return err
	}
	if err := unix.Exec(path, argv, env); err != nil {
		return fmt.Errorf("execute %s: %w", path, err)
	}
	return nil
}

// withNetlink runs f with a route socket of the namespace.
func (ns *Namespace) withNetlink(f func(*netlink.Handle) error) error {
	h, err := netlink.NewHandleAt(ns.fd, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route socket in %s: %w", ns.name, err)
	}
	defer h.Close()
	return f(h)
}

// onOwnThread runs f on a thread whose network namespace f may change. The
// thread goes back to the runtime only in the namespace that it came from.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own namespace: %w", err)
			return
		}
		defer home.Close()
		err = f()
		if back := netns.Set(home); back != nil {
			// Still locked: the runtime ends the thread with this goroutine.
			done <- errors.Join(err, fmt.Errorf("leave namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// DeleteNamespace takes the name of a namespace away. The namespace goes with
// its last process and socket. A name that doesn't exist is no error.
func DeleteNamespace(name string) error {
	path := filepath.Join(RunDir, name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// Namespaces lists the names of the namespaces that begin with prefix.
func Namespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir(RunDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
