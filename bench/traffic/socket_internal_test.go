package traffic

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Both ends of a connection have the congestion control that was asked for: two of
// them, as the kernel may be set to one.
func TestCongestion(t *testing.T) {
	for _, name := range []string{"reno", "cubic"} {
		t.Run(name, func(t *testing.T) { hasCongestion(t, name) })
	}
	if err := HasCongestion("nosuch"); err == nil || !strings.Contains(err.Error(), `"nosuch"`) {
		t.Errorf("HasCongestion of nothing: %v", err)
	}
}

func hasCongestion(t *testing.T, name string) {
	e, at := End{Congestion: name}, netip.MustParseAddrPort("127.0.0.1:0")
	l, err := e.listen(at)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	sa, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	client, err := e.dial(netip.AddrPortFrom(at.Addr(), uint16(sa.(*unix.SockaddrInet4).Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	server, err := accept(l, func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	for who, fd := range map[string]int{"client": client, "server": server} {
		got, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil || strings.TrimRight(got, "\x00") != name {
			t.Errorf("%s has %q, %v", who, got, err)
		}
	}
}
