package traffic

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr (include/linux/socket.h).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// message is a batch for sendmmsg. It must not be copied: the kernel's
// structures point into it.
type message struct {
	hdrs [batchSize]mmsghdr
	iovs [batchSize]unix.Iovec
}

// newMessage makes a batch that carries the same payload in all its messages.
func newMessage(payload []byte) *message {
	m := &message{}
	for i := range m.hdrs {
		m.hdrs[i].hdr.Iov = &m.iovs[i]
		m.hdrs[i].hdr.SetIovlen(1)
		m.iovs[i].Base = unsafe.SliceData(payload)
		m.iovs[i].SetLen(len(payload))
	}
	return m
}

// carry gives each of the first messages a payload of its own, which must stay
// where it is until send returns.
func (m *message) carry(payloads [][]byte) {
	for i, p := range payloads {
		m.iovs[i].Base = unsafe.SliceData(p)
		m.iovs[i].SetLen(len(p))
	}
}

// address points the first len(to) messages at destinations; the names must
// stay where they are until send returns.
func (m *message) address(to []rawAddr) {
	for i := range to {
		m.hdrs[i].hdr.Name = &to[i].b[0]
		m.hdrs[i].hdr.Namelen = to[i].len
	}
}

// send sends the first n messages and returns how many the kernel took. The call is raw:
// the runtime, told of it, would wake its monitor all the time (see scenario's spare).
func (m *message) send(fd, n int) (int, error) {
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.hdrs[0])), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), nil
}

// rawAddr is a struct sockaddr_in or sockaddr_in6.
type rawAddr struct {
	b   [unix.SizeofSockaddrInet6]byte
	len uint32
}

func rawAddrFrom(a netip.AddrPort) (r rawAddr) {
	binary.NativeEndian.PutUint16(r.b[0:], uint16(family(a.Addr())))
	binary.BigEndian.PutUint16(r.b[2:], a.Port())
	if a.Addr().Is4() {
		ip := a.Addr().As4()
		copy(r.b[4:], ip[:])
		r.len = unix.SizeofSockaddrInet4
	} else {
		ip := a.Addr().As16()
		copy(r.b[8:], ip[:])
		r.len = unix.SizeofSockaddrInet6
	}
	return r
}
