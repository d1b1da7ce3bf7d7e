//go:build guest

package zerocopy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/xsk"
)

// The NICs' MAC addresses end in these.
const (
	generator = 1
	ingress   = 2 // under test: receives
	egress    = 3 // under test: sends
	sink      = 4
)

// frames are in flight at most: in copy mode an empty fill ring drops.
const window = 32

// nic sets one of the NICs up and returns it.
func nic(t *testing.T, last byte) netlink.Link {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if mac := l.Attrs().HardwareAddr; bytes.Equal(mac, []byte{0x52, 0x54, 0, 0, 0, last}) {
			must(t, netlink.LinkSetUp(l))
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				l, err := netlink.LinkByIndex(l.Attrs().Index)
				must(t, err)
				if l.Attrs().OperState == netlink.OperUp {
					return l
				}
				if time.Now().After(end) {
					t.Fatalf("NIC %d has no carrier", last)
				}
			}
		}
	}
	t.Fatalf("no NIC %d", last)
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attach puts a program on a NIC in native mode, until the test ends: frames of
// our ethertype go to the socket of the queue, or with drop set are dropped.
func attach(t *testing.T, l netlink.Link, sock *xsk.Socket, drop bool) {
	t.Helper()
	const queueIndex = 16 // offsetof(struct xdp_md, rx_queue_index)
	code := asm.Instructions{asm.Mov.Imm(asm.R0, 1 /* XDP_DROP */), asm.Return()}
	if !drop {
		socks, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 4})
		must(t, err)
		t.Cleanup(func() { socks.Close() })
		must(t, socks.Put(uint32(0), uint32(sock.FD())))
		code = asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, queueIndex, asm.Word),
			asm.LoadMapPtr(asm.R1, socks.FD()),
			asm.Mov.Imm(asm.R3, 2 /* XDP_PASS */),
			asm.FnRedirectMap.Call(),
			asm.Return(),
		}
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: code})
	must(t, err)
	at, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.Attrs().Index, Flags: link.XDPDriverMode})
	must(t, err)
	t.Cleanup(func() { at.Close(); prog.Close() })
}

// open binds a socket to a NIC's only queue.
func open(t *testing.T, u *xsk.UMEM, l netlink.Link, mode xsk.Mode) *xsk.Socket {
	t.Helper()
	cfg := xsk.Default(l.Attrs().Index, 0)
	cfg.RxSize, cfg.TxSize, cfg.FillSize, cfg.CompletionSize = 256, 256, 256, 256
	cfg.Mode = mode
	s, err := u.Open(cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	if s.Mode() != mode {
		t.Fatalf("socket on %s is in %v mode, want %v", l.Attrs().Name, s.Mode(), mode)
	}
	return s
}

func umem(t *testing.T) *xsk.UMEM {
	t.Helper()
	u, err := xsk.NewUMEM(xsk.UMEMConfig{Frames: 1024, FrameSize: 2048})
	must(t, err)
	t.Cleanup(func() { u.Close() })
	return u
}

// raw is a packet socket on a NIC.
func raw(t *testing.T, l netlink.Link) int {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Attrs().Index}))
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}))
	return fd
}

const magic = "sluice zero-copy "

// frame builds a UDP datagram over IPv4 with a number in its payload.
func frame(toNIC, fromNIC byte, from, to netip.Addr, port uint16, number int) []byte {
	payload := fmt.Sprintf("%s%08d", magic, number)
	f := make([]byte, 0, 128)
	f = append(f, 0x52, 0x54, 0, 0, 0, toNIC, 0x52, 0x54, 0, 0, 0, fromNIC, 8, 0)
	ip := make([]byte, 20)
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(payload)))
	copy(ip[12:], from.AsSlice())
	copy(ip[16:], to.AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp[0:], 4000)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	return append(append(append(f, ip...), udp...), payload...)
}

var (
	friend = netip.MustParseAddr("10.0.0.7")
	other  = netip.MustParseAddr("10.0.0.8")
	pod    = netip.MustParseAddr("10.0.1.1")
)

// table lets the friend in on port 80 and nobody else.
func table(t *testing.T) *classify.Table {
	t.Helper()
	up, err := classify.NewUpdater(&rule.Set{
		Peers:      1,
		Identities: []rule.Identity{{0}},
		Addresses:  []rule.Address{{Addr: friend, Identity: 0}},
		Programs: []rule.Program{{Tiers: []rule.Tier{{
			Rules: []rule.Rule{{Action: rule.Allow, Peers: []rule.PeerID{0},
				Ports: []rule.PortRange{{Proto: unix.IPPROTO_UDP, From: 80, To: 80}}, Cause: 1}},
			Default: rule.Deny, DefaultCause: 2,
		}}}},
		Endpoints: []rule.Endpoint{{ID: 1}},
	})
	must(t, err)
	return up.Table()
}

// TestPolicy forwards between two NICs whose sockets share one UMEM, both in
// zero-copy mode: what the policy allows arrives whole, nothing else arrives.
func TestPolicy(t *testing.T) {
	gen, in, out, end := nic(t, generator), nic(t, ingress), nic(t, egress), nic(t, sink)
	u := umem(t)
	rx, tx := open(t, u, in, xsk.ZeroCopy), open(t, u, out, xsk.ZeroCopy)
	attach(t, in, rx, false)
	for _, s := range []*xsk.Socket{rx, tx} {
		// Also where nothing is to be received: a NIC without buffers holds
		// back everyone on its hub.
		s.Refill()
		s.Wake()
	}
	rules := table(t)
	sender, receiver := raw(t, gen), raw(t, end)

	const packets = 2000
	want, got := make(map[int]bool), make(map[int]bool)
	sent, received, denied := 0, 0, 0
	descs := make([]xsk.Desc, 64)
	collect := func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(receiver, buf, unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			i := bytes.Index(buf[:n], []byte(magic))
			var number int
			if i < 0 {
				continue // the kernel's own
			}
			if _, err := fmt.Sscanf(string(buf[i+len(magic):n]), "%d", &number); err != nil || got[number] {
				t.Fatalf("packet %q arrived, or again", buf[i:n])
			}
			if !bytes.Equal(buf[:n], frame(sink, egress, friend, pod, 80, number)) {
				t.Fatalf("packet %d is not what was sent, or not from the friend", number)
			}
			got[number] = true
		}
	}
	for end := time.Now().Add(time.Minute); received < packets || len(got) < len(want); {
		if time.Now().After(end) {
			break
		}
		for sent < packets && sent-received < window {
			from, port := friend, uint16(80)
			switch sent % 4 {
			case 1:
				from = other
			case 3:
				port = 81
			}
			if from == friend && port == 80 {
				want[sent] = true
			}
			f := frame(ingress, generator, from, pod, port, sent)
			must(t, unix.Sendto(sender, f, 0, &unix.SockaddrLinklayer{Ifindex: gen.Attrs().Index, Halen: 6}))
			sent++
		}
		rx.Wait(20)
		n := rx.Recv(descs)
		onward := descs[:0:0]
		for _, d := range descs[:n] {
			f := u.Bytes(d.Addr, d.Len)
			if !bytes.Contains(f, []byte(magic)) {
				u.FreeDescs([]xsk.Desc{d})
				continue
			}
			received++
			var h packet.Header
			packet.Parse(f, &h)
			var verdict [1]classify.Verdict
			rules.Classify([]classify.Query{{Remote: h.Src, Row: rules.Row(1, rule.Ingress), Proto: h.Proto, Port: h.DstPort}}, verdict[:])
			if !verdict[0].Allowed() {
				denied++
				u.FreeDescs([]xsk.Desc{d})
				continue
			}
			// As a router: the sink takes only what is addressed to it.
			f[5], f[11] = sink, egress
			onward = append(onward, d)
		}
		if k := tx.Send(onward); k < len(onward) {
			t.Fatalf("tx ring took %d of %d", k, len(onward))
		}
		tx.Kick()
		tx.Reclaim()
		rx.Refill()
		rx.Wake()
		collect()
	}
	collect()
	t.Logf("sent %d, received %d in zero-copy, denied %d, verified %d of %d allowed", sent, received, denied, len(got), len(want))
	if received != packets || len(got) != len(want) || denied != packets-len(want) {
		t.Error("packets were lost")
	}
	for number := range got {
		if !want[number] {
			t.Errorf("packet %d arrived, which the policy denies", number)
		}
	}
}

// TestFramesInPlace shows where the NIC puts frames that no socket gets, as the
// program drops them: into the UMEM with zero-copy, elsewhere without.
func TestFramesInPlace(t *testing.T) {
	for _, mode := range []xsk.Mode{xsk.ZeroCopy, xsk.Copy} {
		t.Run(mode.String(), func(t *testing.T) {
			gen, in := nic(t, generator), nic(t, ingress)
			u := umem(t)
			rx := open(t, u, in, mode)
			attach(t, in, nil, true)
			rx.Refill()
			rx.Wake()
			// Binding resets the queue, which takes a moment.
			time.Sleep(300 * time.Millisecond)
			sender := raw(t, gen)
			const packets = 8
			before := rxPackets(t, in)
			for i := range packets {
				must(t, unix.Sendto(sender, frame(ingress, generator, friend, pod, 80, i), 0, &unix.SockaddrLinklayer{Ifindex: gen.Attrs().Index, Halen: 6}))
			}
			for end := time.Now().Add(20 * time.Second); rxPackets(t, in) < before+packets && time.Now().Before(end); {
				time.Sleep(20 * time.Millisecond)
			}
			found := 0
			memory := u.Bytes(0, uint32(u.Frames()*u.FrameSize()))
			for i := range packets {
				if bytes.Contains(memory, frame(ingress, generator, friend, pod, 80, i)) {
					found++
				}
			}
			if n := rx.Recv(make([]xsk.Desc, 64)); n != 0 {
				t.Errorf("socket got %d frames that the program drops", n)
			}
			t.Logf("%d of %d dropped frames are in the UMEM", found, packets)
			if want := map[xsk.Mode]int{xsk.ZeroCopy: packets, xsk.Copy: 0}[mode]; found != want {
				t.Errorf("want %d", want)
			}
		})
	}
}

// rxPackets reads how many packets a NIC has received.
func rxPackets(t *testing.T, l netlink.Link) uint64 {
	t.Helper()
	l, err := netlink.LinkByIndex(l.Attrs().Index)
	must(t, err)
	if l.Attrs().Statistics == nil {
		t.Fatalf("no statistics of %s", l.Attrs().Name)
	}
	return l.Attrs().Statistics.RxPackets
}
