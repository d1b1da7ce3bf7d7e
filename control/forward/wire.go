package forward

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nf_tables over netlink (net/netfilter/nfnetlink.c). Attributes are written here
// because google/nftables, as of v0.3.0, doesn't have the addresses of conntrack
// that know their family, without which nft can't list the table, and gives the
// direction four bytes where the kernel wants one, of which it then complains.

// attrs writes attributes.
type attrs func(*netlink.AttributeEncoder)

func nest(e *netlink.AttributeEncoder, attr uint16, inner attrs) {
	e.Nested(attr, func(e *netlink.AttributeEncoder) error {
		inner(e)
		return nil
	})
}

// message builds a message of the nf_tables subsystem.
func message(kind uint16, family byte, flags netlink.HeaderFlags, a attrs) (netlink.Message, error) {
	return nfnetlink(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags, genmsg(family, 0), a)
}

// nfnetlink builds a message of any subsystem, whose struct nfgenmsg is gen.
func nfnetlink(kind uint16, flags netlink.HeaderFlags, gen []byte, a attrs) (netlink.Message, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	a(e)
	data, err := e.Encode()
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags},
		Data:   append(gen, data...),
	}, err
}

// genmsg is struct nfgenmsg.
func genmsg(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// batch is a transaction: its messages take effect together, or none does.
type batch struct {
	msgs []netlink.Message
	err  error
}

func (b *batch) add(kind uint16, family byte, flags netlink.HeaderFlags, a attrs) {
	m, err := message(kind, family, flags, a)
	if b.err == nil {
		b.err = err
	}
	b.msgs = append(b.msgs, m)
}

// sendBuffer is room for a transaction of the largest sets: it is one datagram.
const sendBuffer = 32 << 20

func (b *batch) commit() error {
	if len(b.msgs) == 0 || b.err != nil {
		return b.err
	}
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetWriteBuffer(sendBuffer); err != nil {
		return fmt.Errorf("make room for nftables transaction: %w", err)
	}
	edge := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request}, Data: genmsg(0, unix.NFNL_SUBSYS_NFTABLES)}
	}
	// The kernel reports the first failure, or says yes to the last message.
	b.msgs[len(b.msgs)-1].Header.Flags |= netlink.Acknowledge
	all := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, b.msgs...)
	sent, err := c.SendMessages(append(all, edge(unix.NFNL_MSG_BATCH_END)))
	if err != nil {
		return fmt.Errorf("send nftables transaction: %w", err)
	}
	last := sent[len(sent)-2].Header.Sequence
	for {
		got, err := c.Receive()
		if err != nil {
			return fmt.Errorf("apply nftables transaction: %w", err)
		}
		for _, m := range got {
			if m.Header.Type == netlink.Error && m.Header.Sequence == last {
				return nil
			}
		}
	}
}

// ask sends one question and returns the attributes of the answers.
func ask(kind uint16, family byte, flags netlink.HeaderFlags, a attrs) ([][]byte, error) {
	m, err := message(kind, family, flags, a)
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	got, err := c.Execute(m)
	if err != nil {
		return nil, fmt.Errorf("read nftables: %w", err)
	}
	var out [][]byte
	for _, m := range got {
		if len(m.Data) >= len(genmsg(0, 0)) {
			out = append(out, m.Data[len(genmsg(0, 0)):])
		}
	}
	return out, nil
}

func dial() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	return c, nil
}

// walk visits the contents of each attribute at a path of nested ones.
func walk(b []byte, path []uint16, visit func([]byte) error) error {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return fmt.Errorf("read nftables: %w", err)
	}
	for d.Next() {
		switch {
		case d.Type() != path[0]:
		case len(path) == 1:
			err = visit(d.Bytes())
		default:
			err = walk(d.Bytes(), path[1:], visit)
		}
		if err != nil {
			return err
		}
	}
	return d.Err()
}
