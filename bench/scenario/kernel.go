package scenario

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// kernel is the kernel's forwarding with no filter: what every other system is
// compared to.
var kernel = System{
	Name:  "kernel",
	About: "kernel forwarding, no policy",
	Open:  true,
	Start: func(context.Context, *Stage) (Running, error) { return idle{}, nil },
}

// idle is a System that has nothing to run.
type idle struct{}

func (idle) Modes() map[string]string { return nil }
func (idle) Stop() error              { return nil }

// withRPS is a system with receive packet steering on the host's ends of the
// pods' links: packets of one flow are processed on one CPU, whichever sent
// them.
func withRPS(inner System) System {
	outer := inner
	outer.Name += "-rps"
	outer.About += ", RPS on the pods' host-side links"
	outer.Start = func(ctx context.Context, s *Stage) (Running, error) {
		r, err := inner.Start(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, p := range s.Net.Pods() {
			if err := setRPS(s, p.Link()); err != nil {
				return nil, errors.Join(err, r.Stop())
			}
		}
		return steered{r}, nil
	}
	return outer
}

type steered struct{ Running }

// base is what runs below receive packet steering.
func base(r Running) Running {
	if s, ok := r.(steered); ok {
		return s.Running
	}
	return r
}

func (s steered) Modes() map[string]string {
	m := map[string]string{"rps": rpsMask()}
	for k, v := range s.Running.Modes() {
		m[k] = v
	}
	return m
}

// rpsMask has a bit for each CPU, in groups of 32 (Documentation/networking/scaling.rst).
func rpsMask() string {
	n := runtime.NumCPU()
	mask := ""
	for ; n > 32; n -= 32 {
		mask += ",ffffffff"
	}
	return strconv.FormatUint(1<<n-1, 16) + mask
}

// setRPS writes through a sysfs of the host's namespace: the one of the machine
// shows other links. It is never mounted anywhere.
func setRPS(s *Stage, link string) error {
	return s.Net.Host().Do(func() error {
		fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return fmt.Errorf("open sysfs: %w", err)
		}
		defer unix.Close(fs)
		if err := unix.FsconfigCreate(fs); err != nil {
			return fmt.Errorf("create sysfs: %w", err)
		}
		root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("mount sysfs: %w", err)
		}
		defer unix.Close(root)
		path := "class/net/" + link + "/queues/rx-0/rps_cpus"
		fd, err := unix.Openat(root, path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, []byte(rpsMask())); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return nil
	})
}
