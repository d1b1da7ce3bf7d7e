package scenario

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// nfqueue is a filter in userspace that the kernel asks about the first packet
// of each flow: conntrack accepts what is established, iptables queues the rest,
// a process answers from a table of allowed peers. IPv4 only.
var nfqueue = System{
	Name:  "nfqueue",
	About: "kernel forwarding, conntrack, and NFQUEUE: a process in Go judges packets of new flows",
	Needs: needs("iptables", "iptables-restore"),
	Start: startNFQueue,
}

// QueueCommand is the command of the binary that runs RunQueue with the
// arguments that follow.
var QueueCommand = []string{"bench", "queue"}

func startNFQueue(ctx context.Context, s *Stage) (Running, error) {
	rules := fmt.Sprintf(`*filter
:FORWARD ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -d %s -j NFQUEUE --queue-num 0
COMMIT
`, addrsB[0])
	if err := s.run(ctx, rules, "iptables-restore"); err != nil {
		return nil, err
	}
	var peers strings.Builder
	for _, p := range s.Workload.Rules.peers() {
		fmt.Fprintln(&peers, p)
	}
	path := filepath.Join(s.dir, "peers")
	if err := os.WriteFile(path, []byte(peers.String()), 0o600); err != nil {
		return nil, fmt.Errorf("write peers: %w", err)
	}
	p, err := startProcess(s, append(append([]string{}, QueueCommand...), path)...)
	if err != nil {
		return nil, err
	}
	if err := p.settled(ctx, s, func() bool { return s.logged("queue is open") }); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return processRunning{p, map[string]string{"rules": "iptables, NFQUEUE, fail closed"}}, nil
}

// Messages and attributes of nfnetlink_queue
// (include/uapi/linux/netfilter/nfnetlink_queue.h), and verdicts.
const (
	nfqPacket    = unix.NFNL_SUBSYS_QUEUE << 8
	nfqVerdict   = unix.NFNL_SUBSYS_QUEUE<<8 | 1
	nfqConfig    = unix.NFNL_SUBSYS_QUEUE<<8 | 2
	nfqCmd       = 1 // of nfqConfig: command
	nfqParams    = 2 // how much of a packet is copied
	nfqMaxLen    = 3 // of the queue
	nfqHeader    = 1 // of nfqPacket
	nfqPayload   = 10
	nfqVerdictAt = 2 // of nfqVerdict
	cmdBind      = 1
	copyPacket   = 2
	nfDrop       = 0
	nfAccept     = 1
)

// queuePrefix is how much of a packet is copied: the header that is judged.
const queuePrefix = 64

// RunQueue answers the packets of queue 0 until ctx ends, from a file with a
// peer's address a line.
func RunQueue(ctx context.Context, args []string) (err error) {
	if len(args) != 1 {
		return fmt.Errorf("queue: %d arguments: want a file with peers", len(args))
	}
	allowed, err := readPeers(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	tv := unix.NsecToTimeval(100e6)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
	)
	if err != nil {
		return fmt.Errorf("set netlink socket up: %w", err)
	}
	var params [5]byte
	binary.BigEndian.PutUint32(params[:], queuePrefix)
	params[4] = copyPacket
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], 1<<14)
	for _, attr := range [][]byte{
		attribute(nfqCmd, []byte{cmdBind, 0, 0, unix.AF_INET}), attribute(nfqParams, params[:]), attribute(nfqMaxLen, length[:]),
	} {
		if err := configure(fd, attr); err != nil {
			return fmt.Errorf("open queue 0: %w", err)
		}
	}
	fmt.Fprintln(os.Stderr, "queue is open")
	return serveQueue(ctx, fd, allowed)
}

func readPeers(path string) (map[[4]byte]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	allowed := map[[4]byte]bool{}
	for _, text := range strings.Fields(string(data)) {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			return nil, fmt.Errorf("read peers: %q is no address of IPv4", text)
		}
		allowed[a.As4()] = true
	}
	return allowed, nil
}

// serveQueue judges packets as they come, one verdict each, all verdicts of one
// read in one write.
func serveQueue(ctx context.Context, fd int, allowed map[[4]byte]bool) error {
	in, out := make([]byte, 1<<18), make([]byte, 0, 1<<16)
	for ctx.Err() == nil {
		n, err := unix.Read(fd, in)
		if err == unix.EAGAIN || err == unix.EINTR || err == unix.ENOBUFS {
			continue
		}
		if err != nil {
			return fmt.Errorf("read queue: %w", err)
		}
		out = out[:0]
		for msg := in[:n]; len(msg) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(msg))
			if size < unix.SizeofNlMsghdr || size > len(msg) {
				break
			}
			if binary.NativeEndian.Uint16(msg[4:]) == nfqPacket {
				out = judgeQueued(out, msg[unix.SizeofNlMsghdr:size], allowed)
			}
			msg = msg[min((size+3)&^3, len(msg)):]
		}
		if len(out) > 0 {
			if _, err := unix.Write(fd, out); err != nil {
				return fmt.Errorf("write verdicts: %w", err)
			}
		}
	}
	return nil
}

// judgeQueued appends the verdict on one packet.
func judgeQueued(out, msg []byte, allowed map[[4]byte]bool) []byte {
	var id, packet []byte
	for attrs := msg[min(4, len(msg)):]; len(attrs) >= 4; { // after struct nfgenmsg
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < 4 || size > len(attrs) {
			break
		}
		switch binary.NativeEndian.Uint16(attrs[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case nfqHeader:
			id = attrs[4:size]
		case nfqPayload:
			packet = attrs[4:size]
		}
		attrs = attrs[min((size+3)&^3, len(attrs)):]
	}
	if len(id) < 4 {
		return out
	}
	var verdict [8]byte
	binary.BigEndian.PutUint32(verdict[:], nfDrop)
	if ihl := headerLen(packet); ihl > 0 && allowed[[4]byte(packet[12:16])] && binary.BigEndian.Uint16(packet[ihl+2:]) >= 1024 {
		binary.BigEndian.PutUint32(verdict[:], nfAccept)
	}
	copy(verdict[4:], id[:4])
	return netlinkMessage(out, nfqVerdict, 0, attribute(nfqVerdictAt, verdict[:]))
}

// headerLen is the length of the header of a packet of TCP or UDP over IPv4 with
// ports, else 0.
func headerLen(p []byte) int {
	if len(p) < 24 || p[0]>>4 != 4 || p[9] != unix.IPPROTO_TCP && p[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
		return 0
	}
	if ihl := int(p[0]&0xf) * 4; ihl >= 20 && len(p) >= ihl+4 {
		return ihl
	}
	return 0
}

func attribute(kind uint16, data []byte) []byte {
	b := make([]byte, (4+len(data)+3)&^3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(data)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	copy(b[4:], data)
	return b
}

// netlinkMessage appends a message to queue 0.
func netlinkMessage(out []byte, kind, flags uint16, attr []byte) []byte {
	const head = unix.SizeofNlMsghdr + 4
	out = binary.NativeEndian.AppendUint32(out, uint32(head+len(attr)))
	out = binary.NativeEndian.AppendUint16(out, kind)
	out = binary.NativeEndian.AppendUint16(out, unix.NLM_F_REQUEST|flags)
	out = append(out, make([]byte, 8)...)      // sequence, port
	out = append(out, unix.AF_UNSPEC, 0, 0, 0) // struct nfgenmsg: family, version, queue
	return append(out, attr...)
}

// configure sends a configuration and waits for the kernel's answer.
func configure(fd int, attr []byte) error {
	if _, err := unix.Write(fd, netlinkMessage(nil, nfqConfig, unix.NLM_F_ACK, attr)); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR {
		return errors.New("an answer that is none")
	}
	if code := int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
