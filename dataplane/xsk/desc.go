package xsk

import "golang.org/x/sys/unix"

// Desc describes a piece of a frame, in the layout of struct xdp_desc
// (include/uapi/linux/if_xdp.h). Addr is an offset into the UMEM.
type Desc struct {
	Addr    uint64
	Len     uint32
	Options uint32
}

// PktContd in Desc.Options says that the packet goes on in the next
// descriptor. It is seen only on sockets opened with Config.MultiBuffer.
const PktContd uint32 = unix.XDP_PKT_CONTD

// Mode is how frames travel between the driver and the UMEM.
type Mode uint8

const (
	// Auto takes zero-copy where the driver has it, else copy.
	Auto Mode = iota
	// Copy has the kernel copy each frame; it works on every device.
	Copy
	// ZeroCopy lets the device read and write the UMEM itself, or fails.
	ZeroCopy
)

// String returns the name as it is written in logs.
func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Copy:
		return "copy"
	case ZeroCopy:
		return "zerocopy"
	}
	return "invalid"
}

// Status is what the kernel said to a system call of the packet path, where
// an error value would be too dear. The higher, the worse.
type Status uint8

const (
	// OK: done; after Wait, there are frames to receive.
	OK Status = iota
	// Again: the kernel couldn't take everything now (its budget is used up,
	// the device's queue or the completion ring is full). Reclaim, then call
	// again.
	Again
	// Idle: Wait's time ran out and the socket is in order.
	Idle
	// Down: the device is administratively down. The socket recovers by
	// itself once it is up.
	Down
	// Dead: the device is gone or has left the network namespace, or the
	// socket is closed. Nothing brings it back: close it and open another.
	Dead
)

// String returns the name as it is written in logs.
func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case Again:
		return "again"
	case Idle:
		return "idle"
	case Down:
		return "down"
	case Dead:
		return "dead"
	}
	return "invalid"
}

// statusOf maps the errno of sendto, recvfrom or poll on an AF_XDP socket
// (net/xdp/xsk.c) to a Status. An errno that this code doesn't know counts as
// Dead: opening anew drops whatever descriptor the kernel stumbles over,
// where trying again might spin on it for ever.
func statusOf(errno unix.Errno) Status {
	switch errno {
	case 0:
		return OK
	case unix.EAGAIN, unix.EBUSY, unix.ENOBUFS, unix.ENOMEM, unix.EINTR:
		return Again
	case unix.ENETDOWN:
		return Down
	}
	return Dead
}
