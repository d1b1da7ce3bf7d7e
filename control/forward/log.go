package forward

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// How the tables tell what they drop (net/netfilter/nfnetlink_log.c): they copy
// the beginning of a packet to a group of NFLOG, as it is then: the source is the
// pod, the destination is where the host has translated it to, or the other way
// round for an answer. Whether somebody listens makes no difference to the drop,
// nor does a set without room, or a socket.

// Of one pod, one end and one port some packets a second are told, however many
// are dropped, so that a flood costs a look-up more than the drop itself and hides
// nobody else's. The set bounds what is told in all.
const (
	toldPerSecond = 10
	toldAtOnce    = 20
	toldAtATime   = 1 << 10 // ends
	toldForgotten = 10 * time.Second

	snapLen = 256 // of IP: all headers that are understood
)

// DefaultGroup is a group of NFLOG that nobody else is known to use.
const DefaultGroup = 7353

// short makes a set of what forgets its elements and limits them.
func short(e *netlink.AttributeEncoder) {
	e.Uint32(unix.NFTA_SET_FLAGS, unix.NFT_SET_TIMEOUT|unix.NFT_SET_EVAL)
	e.Uint64(unix.NFTA_SET_TIMEOUT, uint64(toldForgotten.Milliseconds()))
	nest(e, unix.NFTA_SET_DESC, func(e *netlink.AttributeEncoder) { e.Uint32(unix.NFTA_SET_DESC_SIZE, toldAtATime) })
}

// limited goes on with the rule if a set, where each key has a limit of its own,
// has room for the key and the limit for the packet.
func limited(set string) attrs {
	return func(e *netlink.AttributeEncoder) {
		expr(e, "dynset", func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_DYNSET_SET_NAME, set)
			e.Uint32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
			e.Uint32(unix.NFTA_DYNSET_SREG_KEY, firstReg)
			exprAt(e, unix.NFTA_DYNSET_EXPR, "limit", func(e *netlink.AttributeEncoder) {
				e.Uint64(unix.NFTA_LIMIT_RATE, toldPerSecond)
				e.Uint64(unix.NFTA_LIMIT_UNIT, 1)
				e.Uint32(unix.NFTA_LIMIT_BURST, toldAtOnce)
			})
		})
	}
}

func logged(group uint16) attrs {
	return func(e *netlink.AttributeEncoder) {
		expr(e, "log", func(e *netlink.AttributeEncoder) {
			e.Uint16(unix.NFTA_LOG_GROUP, group)
			e.Uint32(unix.NFTA_LOG_SNAPLEN, snapLen)
		})
	}
}

// Of include/uapi/linux/netfilter/nfnetlink_log.h.
const (
	ulogPacket, ulogConfig = 0, 1 // NFULNL_MSG_…

	cfgCmd, cfgMode, cfgTimeout, cfgQThresh, cfgFlags = 1, 2, 4, 5, 6 // NFULA_CFG_…
	cmdBind                                           = 1             // NFULNL_CFG_CMD_BIND
	copyPacket                                        = 2             // NFULNL_COPY_PACKET
	flagSeq                                           = 1             // NFULNL_CFG_F_SEQ

	ulaPayload, ulaSeq = 9, 12 // NFULA_…
)

// ErrTaken says that a group is not to be had. There is one listener; the kernel says
// EPERM to a second one, as to who lacks a capability.
var ErrTaken = errors.New("somebody else listens to it, or CAP_NET_ADMIN is missing")

// Log is what a group of NFLOG tells, to one goroutine.
type Log struct {
	conn *netlink.Conn
	next uint32 // number of the next packet
	Lost uint64 // packets that were told and found no room in the socket
}

// Listen listens to a group in the network namespace of the calling thread.
func Listen(group uint16) (*Log, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	// All in one message: packets may come as soon as the group is bound.
	m, err := nfnetlink(unix.NFNL_SUBSYS_ULOG<<8|ulogConfig, netlink.Acknowledge, genmsg(unix.AF_UNSPEC, group), func(e *netlink.AttributeEncoder) {
		e.Bytes(cfgCmd, []byte{cmdBind})
		e.Bytes(cfgMode, append(binary.BigEndian.AppendUint32(nil, snapLen), copyPacket, 0))
		e.Uint32(cfgTimeout, 5) // hundredths of a second
		e.Uint32(cfgQThresh, 16)
		e.Uint16(cfgFlags, flagSeq)
	})
	if err == nil {
		_, err = c.Execute(m)
	}
	switch {
	case err == nil:
		return &Log{conn: c}, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EPERM): // EPERM: nfulnl_recv_config
		err = ErrTaken
	}
	return nil, errors.Join(fmt.Errorf("listen to NFLOG group %d: %w", group, err), c.Close())
}

// Read calls visit with the beginnings of dropped packets, from their IP headers
// on, which are valid until it returns, and tick now and then, until ctx ends.
func (l *Log) Read(ctx context.Context, every time.Duration, visit func(packet []byte), tick func()) error {
	for next := time.Now().Add(every); ctx.Err() == nil; {
		if err := l.conn.SetReadDeadline(next); err != nil {
			return fmt.Errorf("read NFLOG: %w", err)
		}
		msgs, err := l.conn.Receive()
		var timeout interface{ Timeout() bool }
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // the numbers tell how many
		case errors.As(err, &timeout) && timeout.Timeout():
		default:
			return fmt.Errorf("read NFLOG: %w", err)
		}
		for _, m := range msgs {
			if err := l.take(m, visit); err != nil {
				return err
			}
		}
		if now := time.Now(); !now.Before(next) {
			tick()
			next = now.Add(every)
		}
	}
	return nil
}

func (l *Log) take(m netlink.Message, visit func([]byte)) error {
	if m.Header.Type != unix.NFNL_SUBSYS_ULOG<<8|ulogPacket || len(m.Data) < len(genmsg(0, 0)) {
		return nil // the end of several
	}
	d, err := netlink.NewAttributeDecoder(m.Data[len(genmsg(0, 0)):])
	if err != nil {
		return fmt.Errorf("read NFLOG: %w", err)
	}
	d.ByteOrder = binary.BigEndian
	var packet []byte
	for d.Next() {
		switch d.Type() {
		case ulaPayload:
			packet = d.Bytes()
		case ulaSeq:
			n := d.Uint32()
			l.Lost += uint64(n - l.next)
			l.next = n + 1
		}
	}
	if packet != nil {
		visit(packet)
	}
	return d.Err()
}

// Close ends the listening.
func (l *Log) Close() error { return l.conn.Close() }
