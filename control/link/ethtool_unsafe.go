package link

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value (include/uapi/linux/ethtool.h).
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolIfreq is struct ifreq with a pointer, as SIOCETHTOOL takes it.
type ethtoolIfreq struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// disableOffloads turns checksum and segmentation offload of a link's
// transmission off, so that the kernel does both before the frame leaves.
func disableOffloads(name string) error {
	for _, cmd := range []uint32{unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM} {
		v := ethtoolValue{cmd: cmd}
		if err := ethtool(name, unsafe.Pointer(&v)); err != nil {
			return fmt.Errorf("turn offload %#x off on %s: %w", cmd, name, err)
		}
	}
	return nil
}

// receiveByNAPI turns GRO on for a link's reception.
func receiveByNAPI(name string) error {
	v := ethtoolValue{cmd: unix.ETHTOOL_SGRO, data: 1}
	if err := ethtool(name, unsafe.Pointer(&v)); err != nil {
		return fmt.Errorf("turn GRO on for %s: %w", name, err)
	}
	return nil
}

// ethtool runs one command with the structure at data.
func ethtool(name string, data unsafe.Pointer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer unix.Close(fd)
	req := ethtoolIfreq{data: data}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return errno
	}
	return nil
}

// ethtoolChannels is struct ethtool_channels.
type ethtoolChannels struct {
	cmd                                    uint32
	maxRx, maxTx, maxOther, maxCombined    uint32
	rxCount, txCount, otherCount, combined uint32
}

// rxQueues returns how many queues a link receives on.
func rxQueues(name string) (int, error) {
	c := ethtoolChannels{cmd: unix.ETHTOOL_GCHANNELS}
	if err := ethtool(name, unsafe.Pointer(&c)); err != nil {
		return 0, fmt.Errorf("read channels of %s: %w", name, err)
	}
	if n := int(c.rxCount + c.combined); n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("read channels of %s: none that receive", name)
}

// rxVLANOffload reports whether a link takes VLAN tags off what it receives.
func rxVLANOffload(name string) (bool, error) {
	const flagRxVLAN = 1 << 8 // ETH_FLAG_RXVLAN
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	if err := ethtool(name, unsafe.Pointer(&v)); err != nil {
		return false, fmt.Errorf("read flags of %s: %w", name, err)
	}
	return v.data&flagRxVLAN != 0, nil
}
