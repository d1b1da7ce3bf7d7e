package e2e_test

import (
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
)

// For how long a reply is waited for: that should come, or that should not.
var (
	pingPatience = patience / 6
	pingSilence  = 700 * time.Millisecond
)

// ping sends echo requests one after the other and returns how many replies
// came, each within its own time.
func (n *node) ping(from, to *pod, family, count int, wait time.Duration) int {
	n.Helper()
	return n.pingAddr(from.Namespace(), to.addr(family), count, 56, wait)
}

func (n *node) pingAddr(from *netlab.Namespace, to netip.Addr, count, size int, wait time.Duration) int {
	n.Helper()
	conn := n.echoSocket(from, to)
	defer conn.Close()
	replies := 0
	buf := make([]byte, 65536)
	for seq := range count {
		if n.pingOnce(conn, to, seq, size, wait, buf) {
			replies++
		}
	}
	return replies
}

// echoSocket is a datagram socket for echo requests: the kernel chooses the
// identifier and hands only its replies up.
func (n *node) echoSocket(from *netlab.Namespace, to netip.Addr) net.PacketConn {
	n.Helper()
	var conn net.PacketConn
	err := from.Do(func() error {
		// The group that may open such sockets is a setting of the namespace.
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0o644); err != nil {
			return err
		}
		domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
		if to.Is6() {
			domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		}
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "ping")
		defer f.Close()
		conn, err = net.FilePacketConn(f)
		return err
	})
	must(n.T, err)
	return conn
}

func (n *node) pingOnce(conn net.PacketConn, to netip.Addr, seq, size int, wait time.Duration, buf []byte) bool {
	n.Helper()
	request := make([]byte, 8+size)
	request[0], request[7] = 8, byte(seq)
	if to.Is6() {
		request[0] = 128
	}
	if _, err := conn.WriteTo(request, &net.UDPAddr{IP: to.AsSlice()}); err != nil {
		return false
	}
	must(n.T, conn.SetReadDeadline(time.Now().Add(wait)))
	for {
		got, _, err := conn.ReadFrom(buf)
		if err != nil {
			return false
		}
		if got == len(request) && buf[7] == byte(seq) {
			return true
		}
	}
}
