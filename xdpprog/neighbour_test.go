package xdpprog_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/sluice-net/sluice/xdpprog"
)

// Message types of RFC 4861 and RFC 3810.
const (
	mldQuery     = 130
	mld1Report   = 131
	mldReport    = 143
	routerSolici = 133
	routerAdvert = 134
	nbrSolicit   = 135
	nbrAdvert    = 136
	ndRedirect   = 137
)

// nd is a message of neighbour discovery or MLD with a target or other body.
type nd struct {
	kind     uint8
	code     uint8
	src      netip.Addr
	target   netip.Addr
	hopLimit uint8
	ext      []byte // hop-by-hop header
	cut      int    // bytes cut off the end
	dst      netip.Addr
	reserved byte
	more     []byte // options
	trailer  []byte // of the frame
}

func (m nd) frame(t *testing.T, mac [6]byte) []byte {
	if !m.dst.IsValid() {
		m.dst = netip.MustParseAddr("ff02::1")
		switch m.kind {
		case nbrSolicit:
			m.dst = group(m.target)
		case mldReport:
			m.dst = netip.MustParseAddr("ff02::16")
		}
	}
	ip := ip6(m.src, m.dst, layers.IPProtocolICMPv6)
	ip.HopLimit = m.hopLimit
	body := append([]byte{m.kind, m.code, 0, 0, 0, 0, 0, m.reserved}, m.target.AsSlice()...)
	body = append(body, m.more...)
	if m.ext != nil {
		ip.NextHeader = layers.IPProtocolIPv6HopByHop
		body = append(append([]byte(nil), m.ext...), body...)
	}
	frame := build(t, eth(mac, [6]byte{0x33, 0x33, 0, 0, 0, 1}, layers.EthernetTypeIPv6), ip, gopacket.Payload(body[:len(body)-m.cut]))
	return append(frame, m.trailer...)
}

// group is the solicited-node group of an address.
func group(of netip.Addr) netip.Addr {
	a := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(a[13:], of.AsSlice()[13:])
	return netip.AddrFrom16(a)
}

// ownMAC is the option of a kind that names the pod's link-layer address.
func ownMAC(kind byte) []byte { return append([]byte{kind, 1}, podMAC[:]...) }

func TestNeighbourDiscovery(t *testing.T) {
	r := newRig(t, nil)
	unspecified, allNodes, site := netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("ff05::1")
	alert := []byte{58, 0, 5, 2, 0, 0, 1, 0} // router alert
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6}
	elsewhere, beside := netip.MustParseAddr("2001:db9:dead:beef::1"), netip.MustParseAddr("2001:db8::30")
	pod := netip.MustParseAddr("2001:db8:0:9::1")
	r.must(r.SetPodAddrs(peerSlot, []xdpprog.Addr{addr(pod)}))
	const from, to = xdpprog.PodIngress, xdpprog.PodEgress
	for _, c := range []struct {
		name string
		at   xdpprog.Point
		msg  nd
		want string
	}{
		{"solicit from own address", from, nd{kind: nbrSolicit, src: pod6, target: peer6, hopLimit: 255}, "neighbour"},
		{"solicit of who is elsewhere", from, nd{kind: nbrSolicit, src: pod6, dst: elsewhere, target: elsewhere, hopLimit: 255}, "steered"},
		{"advertise to who is elsewhere", from, nd{kind: nbrAdvert, src: pod6, dst: elsewhere, target: pod6, hopLimit: 255}, "steered"},
		{"advertise to a pod of another prefix", from, nd{kind: nbrAdvert, src: pod6, dst: pod, target: pod6, hopLimit: 255}, "neighbour"},
		{"advertise another to who is elsewhere", from, nd{kind: nbrAdvert, src: pod6, dst: elsewhere, target: peer6, hopLimit: 255}, "drop neighbour-spoof"},
		{"advertise to a neighbour", from, nd{kind: nbrAdvert, src: pod6, dst: beside, target: pod6, hopLimit: 255}, "neighbour"},
		{"solicit from own link-local", from, nd{kind: nbrSolicit, src: podLL, target: peer6, hopLimit: 255}, "neighbour"},
		{"duplicate address detection", from, nd{kind: nbrSolicit, src: unspecified, target: pod6, hopLimit: 255}, "neighbour"},
		{"solicit from another's address", from, nd{kind: nbrSolicit, src: peer6, target: pod6, hopLimit: 255}, "drop neighbour-spoof"},
		{"solicit from afar", from, nd{kind: nbrSolicit, src: pod6, target: peer6, hopLimit: 254}, "drop malformed"},
		{"solicit with a code", from, nd{kind: nbrSolicit, code: 1, src: pod6, target: peer6, hopLimit: 255}, "drop malformed"},
		{"solicit behind a header", from, nd{kind: nbrSolicit, src: pod6, target: peer6, hopLimit: 255, ext: alert}, "drop malformed"},
		{"advert of own address", from, nd{kind: nbrAdvert, src: pod6, target: pod6, hopLimit: 255}, "neighbour"},
		{"advert of another's address", from, nd{kind: nbrAdvert, src: pod6, target: peer6, hopLimit: 255}, "drop neighbour-spoof"},
		{"advert of the gateway", from, nd{kind: nbrAdvert, src: podLL, target: netip.MustParseAddr("fe80::1"), hopLimit: 255}, "drop neighbour-spoof"},
		{"advert cut short", from, nd{kind: nbrAdvert, src: pod6, target: pod6, hopLimit: 255, cut: 8}, "drop truncated"},
		{"advert to the pod", to, nd{kind: nbrAdvert, src: peer6, target: peer6, hopLimit: 255}, "neighbour"},
		{"router solicit", from, nd{kind: routerSolici, src: podLL, hopLimit: 255}, "neighbour"},
		{"router advert of the pod", from, nd{kind: routerAdvert, src: podLL, target: unspecified, hopLimit: 255}, "drop redirect"},
		{"router advert to the pod", to, nd{kind: routerAdvert, src: peer6, target: unspecified, hopLimit: 255}, "neighbour"},
		{"redirect of the pod", from, nd{kind: ndRedirect, src: podLL, target: pod6, hopLimit: 255}, "drop redirect"},
		{"redirect to the pod", to, nd{kind: ndRedirect, src: peer6, target: pod6, hopLimit: 255}, "drop redirect"},
		{"probe of a neighbour", from, nd{kind: nbrSolicit, src: pod6, dst: peer6, target: peer6, more: ownMAC(1), hopLimit: 255}, "neighbour"},
		{"probe without option", from, nd{kind: nbrSolicit, src: pod6, dst: peer6, target: peer6, hopLimit: 255}, "neighbour"},
		{"answer to a probe", from, nd{kind: nbrAdvert, src: pod6, dst: peer6, target: pod6, more: ownMAC(2), hopLimit: 255}, "neighbour"},
		{"data in a probe", from, nd{kind: nbrSolicit, src: pod6, dst: peer6, target: peer6, more: make([]byte, 1000), hopLimit: 255}, "drop malformed"},
		{"data in the option", from, nd{kind: nbrSolicit, src: pod6, dst: peer6, target: peer6, more: []byte{1, 1, 's', 'e', 'c', 'r', 'e', 't'}, hopLimit: 255}, "drop malformed"},
		{"data in the target", from, nd{kind: nbrSolicit, src: pod6, dst: peer6, target: pod6, hopLimit: 255}, "drop malformed"},
		{"data in the reserved field", from, nd{kind: nbrAdvert, src: pod6, dst: peer6, target: pod6, reserved: 1, hopLimit: 255}, "drop malformed"},
		{"data in an answer", from, nd{kind: nbrAdvert, src: pod6, dst: peer6, target: pod6, more: make([]byte, 1000), hopLimit: 255}, "drop malformed"},
		{"data to all of a site", from, nd{kind: nbrSolicit, src: pod6, dst: netip.MustParseAddr("ff05::1"), target: pod6, hopLimit: 255}, "drop malformed"},
		{"router solicit beyond the link", from, nd{kind: routerSolici, src: pod6, dst: peer6, target: unspecified, hopLimit: 255}, "drop malformed"},
		{"solicit with the own MAC", from, nd{kind: nbrSolicit, src: podLL, target: peer6, more: ownMAC(1), hopLimit: 255}, "neighbour"},
		{"detection with a nonce", from, nd{kind: nbrSolicit, src: unspecified, target: pod6, more: nonce, hopLimit: 255}, "neighbour"},
		{"advert to all of the link", from, nd{kind: nbrAdvert, src: pod6, target: pod6, more: ownMAC(2), hopLimit: 255}, "neighbour"},
		{"router solicit with the own MAC", from, nd{kind: routerSolici, src: podLL, more: ownMAC(1), hopLimit: 255}, "neighbour"},
		{"nonce of one with an address", from, nd{kind: nbrSolicit, src: podLL, target: peer6, more: nonce, hopLimit: 255}, "drop malformed"},
		{"nonce in an answer", from, nd{kind: nbrAdvert, src: pod6, target: pod6, more: nonce, hopLimit: 255}, "drop malformed"},
		{"another's MAC", from, nd{kind: nbrSolicit, src: podLL, target: peer6, more: append([]byte{1, 1}, peerMAC[:]...), hopLimit: 255}, "drop malformed"},
		{"answer's option in a solicit", from, nd{kind: nbrSolicit, src: podLL, target: peer6, more: ownMAC(2), hopLimit: 255}, "drop malformed"},
		{"two options", from, nd{kind: nbrSolicit, src: podLL, target: peer6, more: append(ownMAC(1), ownMAC(1)...), hopLimit: 255}, "drop malformed"},
		{"unknown option on the link", from, nd{kind: nbrSolicit, src: podLL, target: peer6, more: []byte{200, 1, 's', 'e', 'c', 'r', 'e', 't'}, hopLimit: 255}, "drop malformed"},
		{"option of another length", from, nd{kind: nbrAdvert, src: pod6, target: pod6, more: []byte{2, 0, podMAC[0], podMAC[1], podMAC[2], podMAC[3], podMAC[4], podMAC[5]}, hopLimit: 255}, "drop malformed"},
		{"reserved bits of a solicit on the link", from, nd{kind: nbrSolicit, src: podLL, target: peer6, reserved: 1, hopLimit: 255}, "drop malformed"},
		{"reserved bits of an answer on the link", from, nd{kind: nbrAdvert, src: pod6, target: pod6, reserved: 1, hopLimit: 255}, "drop malformed"},
		{"reserved bits of a router solicit", from, nd{kind: routerSolici, src: podLL, reserved: 1, hopLimit: 255}, "drop malformed"},
		{"data behind a solicit", from, nd{kind: nbrSolicit, src: podLL, target: peer6, trailer: []byte("secret"), hopLimit: 255}, "drop malformed"},
		{"data behind an answer", from, nd{kind: nbrAdvert, src: pod6, target: pod6, more: ownMAC(2), trailer: make([]byte, 1000), hopLimit: 255}, "drop malformed"},
		{"data in a router solicit", from, nd{kind: routerSolici, src: podLL, more: make([]byte, 1000), hopLimit: 255}, "drop malformed"},
		{"solicit in another's group", from, nd{kind: nbrSolicit, src: podLL, dst: group(podLL.Next()), target: peer6, hopLimit: 255}, "drop malformed"},
		{"solicit to all of the link", from, nd{kind: nbrSolicit, src: podLL, dst: netip.MustParseAddr("ff02::1"), target: peer6, hopLimit: 255}, "drop malformed"},
		{"solicit to the pod, with what others add", to, nd{kind: nbrSolicit, src: peer6, target: pod6, more: nonce, reserved: 1, hopLimit: 255}, "neighbour"},
		{"MLD report", from, nd{kind: mldReport, src: podLL, target: unspecified, hopLimit: 1, ext: alert}, "neighbour"},
		{"MLD report without an address", from, nd{kind: mldReport, src: unspecified, target: unspecified, hopLimit: 1, ext: alert}, "neighbour"},
		{"MLD report of another", from, nd{kind: mldReport, src: peer6, target: unspecified, hopLimit: 1, ext: alert}, "drop neighbour-spoof"},
		{"MLD report to the pod", to, nd{kind: mldReport, src: peer6, target: unspecified, hopLimit: 1, ext: alert}, "drop misdirected"},
		{"MLD query of the pod", from, nd{kind: mldQuery, src: podLL, target: unspecified, hopLimit: 1, ext: alert}, "drop redirect"},
		{"MLD query to the pod", to, nd{kind: mldQuery, src: peer6, target: unspecified, hopLimit: 1, ext: alert}, "neighbour"},
		{"MLD query from afar", to, nd{kind: mldQuery, src: peer6, target: unspecified, hopLimit: 2, ext: alert}, "drop malformed"},
		{"MLD report to a pod", from, nd{kind: mldReport, src: podLL, dst: peer6, target: unspecified, hopLimit: 1, ext: alert}, "drop malformed"},
		{"MLD report to another group", from, nd{kind: mldReport, src: podLL, dst: allNodes, target: unspecified, hopLimit: 1, ext: alert}, "drop malformed"},
		{"MLD report with a trailer", from, nd{kind: mldReport, src: podLL, target: unspecified, hopLimit: 1, ext: alert, trailer: []byte("more")}, "drop malformed"},
		{"MLDv1 report", from, nd{kind: mld1Report, src: podLL, dst: site, target: site, hopLimit: 1, ext: alert}, "neighbour"},
		{"MLDv1 report with data", from, nd{kind: mld1Report, src: podLL, dst: site, target: site, hopLimit: 1, ext: alert, more: []byte("data")}, "drop malformed"},
		{"MLDv1 report to a pod", from, nd{kind: mld1Report, src: podLL, dst: peer6, target: site, hopLimit: 1, ext: alert}, "drop malformed"},
		{"MLD report that travels", from, nd{kind: mldReport, src: podLL, target: unspecified, hopLimit: 2, ext: alert}, "drop malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mac := podMAC
			if c.at == to {
				mac = hostMAC
			}
			if got := r.fate(c.at, c.msg.frame(t, mac)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestARP(t *testing.T) {
	r := newRig(t, nil)
	padded := arp(t, podMAC, podMAC, pod4) // as gopacket does
	own := padded[:14+28]
	targeted := func(mac [6]byte) []byte {
		frame := append([]byte(nil), own...)
		copy(frame[14+18:], mac[:])
		return frame
	}
	oddLength := append([]byte(nil), own...)
	oddLength[14+4] = 8
	oddOp := append([]byte(nil), own...)
	oddOp[14+7] = 8
	stuffed := append([]byte(nil), padded...)
	stuffed[50] = 's'
	for _, c := range []struct {
		name  string
		at    xdpprog.Point
		frame []byte
		want  string
	}{
		{"own", xdpprog.PodIngress, own, "neighbour"},
		{"probe", xdpprog.PodIngress, arp(t, podMAC, podMAC, netip.IPv4Unspecified()), "neighbour"},
		{"another's address", xdpprog.PodIngress, arp(t, podMAC, podMAC, peer4), "drop neighbour-spoof"},
		{"another's MAC inside", xdpprog.PodIngress, arp(t, podMAC, peerMAC, pod4), "drop neighbour-spoof"},
		{"another's MAC", xdpprog.PodIngress, arp(t, peerMAC, peerMAC, peer4), "drop spoofed-mac"},
		{"cut short", xdpprog.PodIngress, own[:30], "drop truncated"},
		{"data for a target", xdpprog.PodIngress, targeted([6]byte{'s', 'e', 'c', 'r', 'e', 't'}), "drop malformed"},
		{"to everybody", xdpprog.PodIngress, targeted([6]byte{255, 255, 255, 255, 255, 255}), "neighbour"},
		{"of itself", xdpprog.PodIngress, targeted(podMAC), "neighbour"},
		{"odd hardware", xdpprog.PodIngress, oddLength, "drop malformed"},
		{"odd operation", xdpprog.PodIngress, oddOp, "drop malformed"},
		{"padded", xdpprog.PodIngress, padded, "neighbour"},
		{"data in the padding", xdpprog.PodIngress, stuffed, "drop malformed"},
		{"data behind the padding", xdpprog.PodIngress, append(padded, make([]byte, 100)...), "drop malformed"},
		{"to the pod", xdpprog.PodEgress, arp(t, hostMAC, hostMAC, far4), "neighbour"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := r.fate(c.at, c.frame); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("address taken away", func(t *testing.T) {
		r.must(r.SetOwnAddrs(podSlot, []xdpprog.Addr{addr(pod6)}))
		if got := r.fate(xdpprog.PodIngress, own); got != "drop neighbour-spoof" {
			t.Errorf("got %q", got)
		}
	})
}
