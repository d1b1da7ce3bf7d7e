package traffic

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// maxReplay is how many packets of a capture are replayed: what fits the
// machine's memory without a thought.
const maxReplay = 1 << 20

// Replay makes a load of a capture (pcap or pcapng): its packets of IPv4 in
// their order, with MACs and addresses replaced, so that they lead from one pod
// to the other, and whole ones only. It returns how many packets it left out.
func Replay(in io.Reader, fromMAC, toMAC net.HardwareAddr, from, to netip.Addr) (l *Load, left int, err error) {
	read, err := capture(in)
	if err != nil {
		return nil, 0, fmt.Errorf("read capture: %w", err)
	}
	l = &Load{}
	for len(l.Frames) < maxReplay {
		data, length, err := read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read capture: packet %d: %w", len(l.Frames)+left+1, err)
		}
		whole := len(data) == length
		if !whole || len(data) < ethLen+20 || len(data) > maxFrame-fcs ||
			binary.BigEndian.Uint16(data[12:]) != typeIPv4 || data[ethLen]>>4 != 4 {
			left++
			continue
		}
		l.Order = append(l.Order, uint32(len(l.Frames)))
		l.Frames = append(l.Frames, readdress(data, fromMAC, toMAC, from, to))
	}
	if len(l.Frames) == 0 {
		return nil, left, fmt.Errorf("read capture: none of its %d packets is a whole Ethernet frame of IPv4", left)
	}
	return l, left, nil
}

// capture opens either format and returns what reads one packet.
func capture(in io.Reader) (func() (data []byte, length int, err error), error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	all := io.MultiReader(bytes.NewReader(head), in)
	const section = 0x0a0d0d0a // the first block of a pcapng file
	if binary.BigEndian.Uint32(head) == section {
		r, err := pcapgo.NewNgReader(all, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			return nil, err
		}
		return func() ([]byte, int, error) {
			data, info, err := r.ReadPacketData()
			return data, info.Length, err
		}, onlyEthernet(r.LinkType())
	}
	r, err := pcapgo.NewReader(all)
	if err != nil {
		return nil, err
	}
	return func() ([]byte, int, error) {
		data, info, err := r.ReadPacketData()
		return data, info.Length, err
	}, onlyEthernet(r.LinkType())
}

func onlyEthernet(t layers.LinkType) error {
	if t != layers.LinkTypeEthernet {
		return fmt.Errorf("link type %v: want Ethernet", t)
	}
	return nil
}

// readdress copies a frame and gives it other addresses. The checksums of TCP
// and UDP are those of the old ones: what is between the pods does not look at
// them.
func readdress(data []byte, fromMAC, toMAC net.HardwareAddr, from, to netip.Addr) []byte {
	f := append([]byte(nil), data...)
	copy(f, toMAC)
	copy(f[6:], fromMAC)
	src, dst := from.As4(), to.As4()
	copy(f[ethLen+12:], src[:])
	copy(f[ethLen+16:], dst[:])
	if f[ethLen]&0xf == 5 {
		sumIPv4(f)
	}
	if pad := minFrame - fcs - len(f); pad > 0 {
		f = append(f, make([]byte, pad)...)
	}
	return f
}
