package xsk

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Stats are the kernel's counters of a socket, in the layout of struct
// xdp_statistics (include/uapi/linux/if_xdp.h).
type Stats struct {
	RxDropped       uint64 // for other reasons than those below
	RxInvalid       uint64 // by an invalid address in the fill ring
	TxInvalid       uint64 // by an invalid descriptor in the tx ring
	RxRingFull      uint64 // because the user was too slow
	RxFillRingEmpty uint64 // times that no frame was to be had
	TxRingEmpty     uint64 // times that there was nothing to send
}

// Stats reads the counters. Any goroutine may call it while the socket is
// open.
func (s *Socket) Stats() (Stats, error) {
	var st Stats
	if err := getOption(s.fd, unix.XDP_STATISTICS, &st); err != nil {
		return Stats{}, fmt.Errorf("get XDP_STATISTICS: %w", err)
	}
	return st, nil
}
