package xsk

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layouts of include/uapi/linux/if_xdp.h come from x/sys; these two are
// declared here because callers see them or rings carry them.
var (
	_ [unsafe.Sizeof(unix.XDPDesc{})]byte       = [unsafe.Sizeof(Desc{})]byte{}
	_ [unsafe.Sizeof(unix.XDPStatistics{})]byte = [unsafe.Sizeof(Stats{})]byte{}
)

const ringNeedWakeup = unix.XDP_RING_NEED_WAKEUP

// slotBytes is the size of one slot.
func slotBytes[T slot]() uint64 {
	var t T
	return uint64(unsafe.Sizeof(t))
}

// overlay lays a ring of size slots over mem, at the offsets that the kernel
// gives for a mapping. mem must stay mapped for as long as the ring is used.
func overlay[T slot](mem []byte, off unix.XDPRingOffset, size uint32) (ring[T], error) {
	if size == 0 || size&(size-1) != 0 {
		return ring[T]{}, fmt.Errorf("ring size %d is not a power of two", size)
	}
	n := uint64(len(mem))
	for _, o := range [...]uint64{off.Producer, off.Consumer, off.Flags} {
		if o%4 != 0 || o+4 > n {
			return ring[T]{}, fmt.Errorf("ring index at offset %d of %d bytes", o, n)
		}
	}
	if off.Desc%8 != 0 || off.Desc+uint64(size)*slotBytes[T]() > n {
		return ring[T]{}, fmt.Errorf("%d slots at offset %d of %d bytes", size, off.Desc, n)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return ring[T]{
		producer: (*uint32)(unsafe.Add(base, off.Producer)),
		consumer: (*uint32)(unsafe.Add(base, off.Consumer)),
		flags:    (*uint32)(unsafe.Add(base, off.Flags)),
		slots:    unsafe.Slice((*T)(unsafe.Add(base, off.Desc)), size),
		mask:     size - 1,
	}, nil
}

// registerUMEM makes mem the UMEM of the socket (XDP_UMEM_REG).
func registerUMEM(fd int, mem []byte, cfg UMEMConfig) error {
	reg := unix.XDPUmemReg{
		Addr:     uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem)))),
		Len:      uint64(len(mem)),
		Size:     uint32(cfg.FrameSize),
		Headroom: uint32(cfg.Headroom),
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_UMEM_REG,
		uintptr(unsafe.Pointer(&reg)), unsafe.Sizeof(reg), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// getOption reads a structure from the socket. A kernel that knows only a
// shorter one is refused.
func getOption[T unix.XDPMmapOffsets | Stats](fd, option int, v *T) error {
	size := uint32(unsafe.Sizeof(*v))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option),
		uintptr(unsafe.Pointer(v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	if uintptr(size) != unsafe.Sizeof(*v) {
		return fmt.Errorf("kernel gave %d bytes of %d", size, unsafe.Sizeof(*v))
	}
	return nil
}
