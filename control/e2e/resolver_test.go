package e2e_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sluice-net/sluice/bench/netlab"
)

// resolver is a DNS server: it answers from a table, with a chain of aliases
// before the addresses.
type resolver struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr // by name, with its final dot
	ttl   uint32
	conns []net.PacketConn
	// before, if not nil, sends what it likes before the answer.
	before func(pc net.PacketConn, to net.Addr, question, answer []byte)
}

// resolve starts a resolver at addresses of a namespace, port 53.
func (n *node) resolver(in *netlab.Namespace, addrs ...netip.Addr) *resolver {
	n.Helper()
	r := &resolver{addrs: map[string][]netip.Addr{}, ttl: 1}
	for _, a := range addrs {
		var udp net.PacketConn
		var tcp net.Listener
		must(n.T, in.Do(func() (err error) {
			if udp, err = net.ListenPacket("udp", at(a, 53).String()); err != nil {
				return err
			}
			tcp, err = net.Listen("tcp", at(a, 53).String())
			return err
		}))
		r.conns = append(r.conns, udp)
		n.Cleanup(func() { udp.Close(); tcp.Close() })
		go r.serveUDP(udp)
		go r.serveTCP(tcp)
	}
	return r
}

func (r *resolver) set(name string, addrs ...netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addrs[name+"."] = addrs
}

func (r *resolver) serveUDP(pc net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		size, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		if m := r.answer(buf[:size]); m != nil {
			if r.before != nil {
				r.before(pc, from, buf[:size], m)
			}
			_, _ = pc.WriteTo(m, from)
		}
	}
}

func (r *resolver) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for {
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				m := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, m); err != nil {
					return
				}
				out := r.answer(m)
				out = append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)
				// In pieces, that become segments of their own.
				for len(out) > 0 {
					k := min(len(out), 20)
					if _, err := c.Write(out[:k]); err != nil {
						return
					}
					out = out[k:]
				}
			}
		}()
	}
}

// answer answers a question: two aliases, then the addresses of its family.
func (r *resolver) answer(m []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(m)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	r.mu.Lock()
	addrs, known := r.addrs[strings.ToLower(q.Name.String())]
	ttl := r.ttl
	r.mu.Unlock()
	h.Response, h.RecursionAvailable = true, true
	if !known {
		h.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(nil, h)
	b.EnableCompression()
	_ = b.StartQuestions()
	_ = b.Question(q)
	_ = b.StartAnswers()
	if known {
		last := q.Name
		head := func(kind dnsmessage.Type) dnsmessage.ResourceHeader {
			return dnsmessage.ResourceHeader{Name: last, Type: kind, Class: dnsmessage.ClassINET, TTL: ttl}
		}
		for _, next := range []string{"one.aliases.", "two.aliases."} {
			_ = b.CNAMEResource(head(dnsmessage.TypeCNAME), dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(next)})
			last = dnsmessage.MustNewName(next)
		}
		for _, a := range addrs {
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				_ = b.AResource(head(dnsmessage.TypeA), dnsmessage.AResource{A: a.As4()})
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				_ = b.AAAAResource(head(dnsmessage.TypeAAAA), dnsmessage.AAAAResource{AAAA: a.As16()})
			}
		}
	}
	_ = b.StartAdditionals()
	var opt dnsmessage.ResourceHeader
	_ = opt.SetEDNS0(1232, dnsmessage.RCodeSuccess, false)
	_ = b.OPTResource(opt, dnsmessage.OPTResource{})
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}

// lookup asks a resolver as Go's own stub does, over udp or tcp.
func (n *node) lookup(from *netlab.Namespace, proto string, server netip.Addr, family int, name string) ([]netip.Addr, error) {
	stub := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = from.Do(func() error {
			var d net.Dialer
			c, err = d.DialContext(ctx, proto, at(server, 53).String())
			return err
		})
		return c, err
	}}
	ctx, cancel := context.WithTimeout(n.Context(), patience)
	defer cancel()
	return stub.LookupNetIP(ctx, fmt.Sprintf("ip%d", family), name+".")
}

// query is a question for a name's IPv4 addresses.
func query(name string) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET})
	out, _ := b.Finish()
	return out
}
