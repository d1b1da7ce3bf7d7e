package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"sync"
)

// SCTPInit is an INIT chunk that arrived. The kernel of a lab need not speak
// SCTP: INITs are sent and seen through raw sockets, and nobody answers.
type SCTPInit struct {
	Src, Dst netip.AddrPort
	Tag      uint32 // initiate tag
}

// Layout of an SCTP packet with one INIT chunk (RFC 9260, 3 and 3.3.2).
const (
	sctpHeaderLen   = 12
	sctpInitLen     = 20
	sctpChunkInit   = 1
	sctpProtoNumber = "132"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WatchSCTP calls seen, from one goroutine, for each intact INIT that arrives
// at an address of the namespace, at any port.
func (ns *Namespace) WatchSCTP(at netip.Addr, seen func(SCTPInit)) (io.Closer, error) {
	conn, err := ns.rawSCTP(at)
	if err != nil {
		return nil, fmt.Errorf("watch SCTP in %s: %w", ns.name, err)
	}
	w := &sctpWatch{conn: conn}
	w.done.Go(func() { w.run(at, seen) })
	return w, nil
}

func (ns *Namespace) rawSCTP(at netip.Addr) (conn *net.IPConn, err error) {
	err = ns.Do(func() error {
		conn, err = net.ListenIP(sctpNetwork(at), &net.IPAddr{IP: at.AsSlice()})
		return err
	})
	return conn, err
}

func sctpNetwork(a netip.Addr) string {
	if a.Is4() {
		return "ip4:" + sctpProtoNumber
	}
	return "ip6:" + sctpProtoNumber
}

type sctpWatch struct {
	conn *net.IPConn
	done sync.WaitGroup
}

func (w *sctpWatch) run(at netip.Addr, seen func(SCTPInit)) {
	buf := make([]byte, 65536)
	for {
		size, from, err := w.conn.ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		src, ok := netip.AddrFromSlice(from.IP)
		if !ok {
			continue
		}
		if in, ok := parseInit(src.Unmap(), at, buf[:size]); ok {
			seen(in)
		}
	}
}

// Close ends the watch; seen is not called afterwards.
func (w *sctpWatch) Close() error {
	err := w.conn.Close()
	w.done.Wait()
	return err
}

// sendInit sends one INIT from a raw socket of the source's namespace.
func sendInit(conn *net.IPConn, in SCTPInit) error {
	_, err := conn.WriteToIP(appendInit(nil, in), &net.IPAddr{IP: in.Dst.Addr().AsSlice()})
	return err
}

func appendInit(b []byte, in SCTPInit) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, in.Src.Port())
	b = binary.BigEndian.AppendUint16(b, in.Dst.Port())
	b = append(b, 0, 0, 0, 0) // verification tag: 0 in an INIT
	b = append(b, 0, 0, 0, 0) // checksum, below
	b = append(b, sctpChunkInit, 0)
	b = binary.BigEndian.AppendUint16(b, sctpInitLen)
	b = binary.BigEndian.AppendUint32(b, in.Tag)
	b = binary.BigEndian.AppendUint32(b, 65536) // receiver window
	b = binary.BigEndian.AppendUint16(b, 1)     // outbound streams
	b = binary.BigEndian.AppendUint16(b, 1)     // inbound streams
	b = binary.BigEndian.AppendUint32(b, in.Tag)
	binary.LittleEndian.PutUint32(b[start+8:], crc32.Checksum(b[start:], castagnoli))
	return b
}

func parseInit(src, dst netip.Addr, b []byte) (SCTPInit, bool) {
	if len(b) < sctpHeaderLen+sctpInitLen || b[sctpHeaderLen] != sctpChunkInit {
		return SCTPInit{}, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	if crc32.Checksum(b, castagnoli) != sum {
		return SCTPInit{}, false
	}
	return SCTPInit{
		Src: netip.AddrPortFrom(src, binary.BigEndian.Uint16(b)),
		Dst: netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:])),
		Tag: binary.BigEndian.Uint32(b[sctpHeaderLen+4:]),
	}, true
}
