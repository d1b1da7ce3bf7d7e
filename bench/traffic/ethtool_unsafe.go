package traffic

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offload is a switch that ethtool has for a link: its commands to get and set
// (include/uapi/linux/ethtool.h).
type Offload struct{ get, set uint32 }

// The offloads that matter here.
var (
	TSO        = Offload{unix.ETHTOOL_GTSO, unix.ETHTOOL_STSO}
	GSO        = Offload{unix.ETHTOOL_GGSO, unix.ETHTOOL_SGSO}
	TxChecksum = Offload{unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_STXCSUM}
)

// Get reports whether the offload is on for a link of the calling thread's
// namespace.
func (o Offload) Get(link string) (bool, error) {
	v := ethtoolValue{cmd: o.get}
	err := ethtool(link, &v)
	return v.data != 0, err
}

// Set turns the offload of a link of the calling thread's namespace on or off.
func (o Offload) Set(link string, on bool) error {
	v := ethtoolValue{cmd: o.set}
	if on {
		v.data = 1
	}
	return ethtool(link, &v)
}

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolRequest is struct ifreq with a pointer, as SIOCETHTOOL takes it.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

func ethtool(link string, v *ethtoolValue) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for ethtool: %w", err)
	}
	defer unix.Close(fd)
	req := ethtoolRequest{data: unsafe.Pointer(v)}
	copy(req.name[:unix.IFNAMSIZ-1], link)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return fmt.Errorf("ethtool %#x on %s: %w", v.cmd, link, errno)
	}
	return nil
}
