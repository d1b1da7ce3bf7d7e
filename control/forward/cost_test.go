package forward_test

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// BenchmarkForwarded has the host forward packets of one connection from a veth to
// another, with conntrack and an empty NAT as kube-proxy's, in turns of 1,000: without
// tables, with tables that guard 1,000 other calls, as a guarded call itself, and as
// one that is dropped, by tables that tell of it and by others. An operation is a turn
// of each. What else the machine does adds to some turns: the first decile is reported.
func BenchmarkForwarded(b *testing.B) {
	inNamespace(b)
	const perTurn = 1000
	one := unix.CPUSet{}
	one.Set(0)
	must(b, unix.SchedSetaffinity(0, &one)) // of this thread, which forwards what it sends
	r := newRoad(b)
	own := forward.Set{{Src: r.src, Dst: r.dst, Proto: packet.ProtoUDP, Port: 80}: {}}
	other := tuples(0, 2000)
	both := tuples(0, 2000)
	for x := range own {
		both[x] = struct{}{}
	}
	kinds := []struct {
		name        string
		group       uint16
		calls, ways forward.Set
	}{
		{"none", forward.DefaultGroup, nil, nil},
		{"unguarded", forward.DefaultGroup, other, other},
		{"guarded", forward.DefaultGroup, both, both},
		{"dropped", 0, both, other},
		{"told", forward.DefaultGroup, both, other},
	}
	l, err := forward.Listen(forward.DefaultGroup)
	must(b, err)
	defer l.Close()
	took := make([][]time.Duration, len(kinds))
	for b.Loop() {
		for i, k := range kinds {
			g, err := forward.Adopt(k.group)
			must(b, err)
			must(b, g.Apply(k.calls, k.ways))
			r.send(b, perTurn)
			before, began := r.arrived(b)+g.Drops(), time.Now()
			r.send(b, perTurn)
			if t := time.Since(began); r.arrived(b)+g.Drops() == before+perTurn {
				took[i] = append(took[i], t)
			}
		}
	}
	for i, k := range kinds {
		if len(took[i]) == 0 {
			b.Fatalf("%s: in no turn all packets were seen again", k.name)
		}
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/10].Nanoseconds())/perTurn, "ns/"+k.name)
	}
}

// road is a way through the host that ends nowhere.
type road struct {
	src, dst netip.Addr
	fd       int
	frame    []byte
	out      netlink.Link // towards nobody
}

func newRoad(b *testing.B) *road {
	r := &road{src: netip.MustParseAddr("10.9.1.9"), dst: netip.MustParseAddr("10.9.2.9")}
	must(b, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
	up := func(name, addr string) netlink.Link {
		l, err := netlink.LinkByName(name)
		must(b, err)
		must(b, netlink.LinkSetUp(l))
		if addr != "" {
			a, err := netlink.ParseAddr(addr)
			must(b, err)
			must(b, netlink.AddrAdd(l, a))
		}
		return l
	}
	for name, peer := range map[string]string{"in": "pod", "out": "end"} {
		must(b, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}))
	}
	in, pod := up("in", "10.9.1.1/24"), up("pod", "")
	r.out = up("out", "10.9.2.1/24")
	up("end", "")
	must(b, netlink.NeighAdd(&netlink.Neigh{LinkIndex: r.out.Attrs().Index, State: netlink.NUD_PERMANENT, IP: r.dst.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}))
	nft(b, "add table inet nat; add chain inet nat pre { type nat hook prerouting priority dstnat; }; add chain inet nat post { type nat hook postrouting priority srcnat; }")

	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: r.src.AsSlice(), DstIP: r.dst.AsSlice()}
	udp := &layers.UDP{SrcPort: 40000, DstPort: 80}
	must(b, udp.SetNetworkLayerForChecksum(ip))
	buf := gopacket.NewSerializeBuffer()
	must(b, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: pod.Attrs().HardwareAddr, DstMAC: in.Attrs().HardwareAddr, EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload("payload")))
	r.frame = buf.Bytes()
	var err error
	r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	must(b, err)
	b.Cleanup(func() { _ = unix.Close(r.fd) })
	must(b, unix.Bind(r.fd, &unix.SockaddrLinklayer{Ifindex: pod.Attrs().Index}))
	return r
}

func (r *road) send(b *testing.B, n int) {
	for range n {
		if _, err := unix.Write(r.fd, r.frame); err != nil {
			b.Fatal(err)
		}
	}
}

func (r *road) arrived(b *testing.B) uint64 {
	l, err := netlink.LinkByIndex(r.out.Attrs().Index)
	must(b, err)
	return l.Attrs().Statistics.TxPackets
}
