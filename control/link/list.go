package link

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// dumpTries bounds how often a listing is repeated.
const dumpTries = 20

// Whole repeats a listing that a change interrupted: the kernel says then that
// the list may be incomplete, and on a busy node links change all the time. It
// returns ErrDumpInterrupted of package netlink if changes never cease.
func Whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
