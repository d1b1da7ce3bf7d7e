package traffic

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// packetSocket opens a packet socket that only sends ready-made frames, past the
// namespace's IP stack and queueing discipline: they become real skbs at a
// fraction of the cost of a UDP socket's.
func packetSocket(ifindex int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20),
		setTimeouts(fd, lookUp),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set packet socket up: %w", err)
	}
	return fd, nil
}
