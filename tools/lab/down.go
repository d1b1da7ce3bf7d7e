package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

// UniqueName makes a name for a lab that nobody needs to know.
func UniqueName(prefix string) string { return fmt.Sprintf("%s-%08x", prefix, rand.Uint32()) }

// Down ends a lab, as Find finds it, and returns when it is gone. It also
// cleans up after labs that are dead. It returns the names of the labs that it
// took down.
func Down(ctx context.Context, name string) ([]string, error) {
	dead, err := deadNames(name)
	if err != nil {
		return nil, err
	}
	if err := SweepDead(); err != nil {
		return nil, err
	}
	s, err := Find(name)
	if errors.Is(err, ErrNoLab) && len(dead) > 0 {
		return dead, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Kill(s.PID, unix.SIGTERM); err != nil && err != unix.ESRCH {
		return nil, fmt.Errorf("end lab %s: %w", s.Name, err)
	}
	for tick := time.Tick(20 * time.Millisecond); alive(s.Name); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick:
		}
	}
	// It may have died before it could clean up.
	return append(dead, s.Name), SweepDead()
}

// deadNames lists the dead labs, or the one of that name if it is dead.
func deadNames(name string) ([]string, error) {
	all, err := names()
	if err != nil {
		return nil, err
	}
	var dead []string
	for _, n := range all {
		if (name == "" || n == name) && !alive(n) {
			dead = append(dead, n)
		}
	}
	return dead, nil
}
