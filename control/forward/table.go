package forward

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// table is the table of one address family, "table ip sluice" or "table ip6
// sluice". nft shows it so:
//
//	counter denied
//	set calls { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
//	set ways { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
//	set told { as calls; size 1024; flags dynamic,timeout; timeout 10s; }
//	chain denied {
//		update @told { ip saddr . ip daddr . meta l4proto . th dport limit rate 10/second burst 20 packets } log group 7353 snaplen 256
//		counter name denied; drop
//	}
//	chain judge {
//		ct protocol tcp ct original ip saddr . ct reply ip saddr . ct protocol . ct reply proto-src @ways return
//		ct protocol udp … and sctp
//		goto denied
//	}
//	chain leaving {
//		type filter hook postrouting priority 99;
//		ct protocol tcp ct original ip saddr . ct original ip daddr . ct protocol . ct original proto-dst @calls jump judge
//		ct protocol udp … and sctp
//		ct state & (invalid | untracked) != 0 ip saddr . ip daddr . meta l4proto . th dport @calls goto denied
//	}
//	chain arriving { type filter hook input priority 0; as leaving }
//
// Where a connection leads is where its replies come from: the reply's source in
// conntrack, from which the NAT translates (nf_nat_core.c). An ICMP error belongs
// to the connection that it quotes, and goes its way. The last rule is for what
// conntrack leaves alone, and so the NAT. Both hooks come before conntrack
// confirms a connection: one that is dropped leaves no trace, and when its client
// tries again, the NAT chooses again. What IPVS translates goes through input
// before it does so, and is closed there. That a protocol is named first is for nft,
// which takes ports of a connection whose protocol it knows, and no others: a ruleset
// that was saved with these tables in it can be loaded again.
type table struct {
	family   byte
	addrLen  int
	addrType uint32 // as nft numbers it
	src, dst uint32 // keys of ct
	srcAt    uint32 // in the IP header
	dstAt    uint32
}

var (
	table4 = table{family: unix.NFPROTO_IPV4, addrLen: 4, addrType: 7,
		src: unix.NFT_CT_SRC_IP, dst: unix.NFT_CT_DST_IP, srcAt: 12, dstAt: 16}
	table6 = table{family: unix.NFPROTO_IPV6, addrLen: 16, addrType: 8,
		src: unix.NFT_CT_SRC_IP6, dst: unix.NFT_CT_DST_IP6, srcAt: 8, dstAt: 24}
)

const (
	tableName = "sluice"

	// keyType has a type of six bits for each part of a key.
	typeProto, typePort = 12, 13

	original, reply = 0, 1 // directions of a connection

	stateNone = 1 | 1<<6 // NF_CT_STATE_INVALID_BIT, NF_CT_STATE_UNTRACKED_BIT

	beforeSNAT = 99 // NF_IP_PRI_NAT_SRC is 100
)

// of returns those of one family.
func (t *table) of(s Set) Set {
	out := Set{}
	for x := range s {
		if x.Src.BitLen() == 8*t.addrLen {
			out[x] = struct{}{}
		}
	}
	return out
}

// key is a Tuple as a set has it: each part in whole registers of 32 bits.
func (t *table) key(x *Tuple) []byte {
	b := append(x.Src.AsSlice(), x.Dst.AsSlice()...)
	b = append(b, byte(x.Proto), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, x.Port)
	return append(b, 0, 0)
}

func (t *table) keyLen() int { return 2*t.addrLen + 8 }

func (t *table) tuple(key []byte) (x Tuple, err error) {
	if len(key) != t.keyLen() {
		return x, fmt.Errorf("read table %s: key of %d bytes", tableName, len(key))
	}
	x.Src, _ = netip.AddrFromSlice(key[:t.addrLen])
	x.Dst, _ = netip.AddrFromSlice(key[t.addrLen : 2*t.addrLen])
	rest := key[2*t.addrLen:]
	x.Proto, x.Port = packet.Proto(rest[0]), binary.BigEndian.Uint16(rest[4:])
	return x, nil
}

// remove takes the table away, if it is there.
func (t *table) remove(b *batch) {
	b.add(unix.NFT_MSG_NEWTABLE, t.family, netlink.Create, t.named(unix.NFTA_TABLE_NAME))
	b.add(unix.NFT_MSG_DELTABLE, t.family, 0, t.named(unix.NFTA_TABLE_NAME))
}

// make makes the table, with empty sets. What it drops it tells by an expression, if
// there is one.
func (t *table) make(b *batch, tell attrs) {
	b.add(unix.NFT_MSG_NEWTABLE, t.family, netlink.Create, t.named(unix.NFTA_TABLE_NAME))
	b.add(unix.NFT_MSG_NEWOBJ, t.family, netlink.Create, t.counter(true))
	t.addSet(b, "calls", 1, nil)
	t.addSet(b, "ways", 2, nil)
	for _, name := range []string{"denied", "judge"} {
		b.add(unix.NFT_MSG_NEWCHAIN, t.family, netlink.Create, t.chain(name))
	}
	t.addHook(b, "leaving", unix.NF_INET_POST_ROUTING, beforeSNAT)
	t.addHook(b, "arriving", unix.NF_INET_LOCAL_IN, 0)

	if tell != nil {
		t.addSet(b, "told", 3, short)
		t.addRule(b, "denied", t.header(), limited("told"), tell)
	}
	t.addRule(b, "denied", counted("denied"), verdict(drop, ""))
	protocols := []packet.Proto{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP}
	for _, proto := range protocols {
		t.addRule(b, "judge", ofProtocol(proto), t.conn(original, t.src, reply, t.src, unix.NFT_CT_PROTO_SRC), lookup("ways"), verdict(unix.NFT_RETURN, ""))
	}
	t.addRule(b, "judge", verdict(unix.NFT_GOTO, "denied"))
	for _, name := range []string{"leaving", "arriving"} {
		for _, proto := range protocols {
			t.addRule(b, name, ofProtocol(proto), t.conn(original, t.src, original, t.dst, unix.NFT_CT_PROTO_DST), lookup("calls"), verdict(unix.NFT_JUMP, "judge"))
		}
		t.addRule(b, name, inState(stateNone), t.header(), lookup("calls"), verdict(unix.NFT_GOTO, "denied"))
	}
}

func (t *table) named(attr uint16) attrs {
	return func(e *netlink.AttributeEncoder) { e.String(attr, tableName) }
}

func (t *table) chain(name string) attrs {
	return func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_CHAIN_TABLE, tableName)
		e.String(unix.NFTA_CHAIN_NAME, name)
	}
}

func (t *table) addHook(b *batch, name string, hook uint32, priority int32) {
	b.add(unix.NFT_MSG_NEWCHAIN, t.family, netlink.Create, func(e *netlink.AttributeEncoder) {
		t.chain(name)(e)
		nest(e, unix.NFTA_CHAIN_HOOK, func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_HOOK_HOOKNUM, hook)
			e.Int32(unix.NFTA_HOOK_PRIORITY, priority)
		})
		e.String(unix.NFTA_CHAIN_TYPE, "filter")
	})
}

func (t *table) addSet(b *batch, name string, id uint32, more attrs) {
	b.add(unix.NFT_MSG_NEWSET, t.family, netlink.Create, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_TABLE, tableName)
		e.String(unix.NFTA_SET_NAME, name)
		e.Uint32(unix.NFTA_SET_KEY_TYPE, ((t.addrType<<6|t.addrType)<<6|typeProto)<<6|typePort)
		e.Uint32(unix.NFTA_SET_KEY_LEN, uint32(t.keyLen()))
		e.Uint32(unix.NFTA_SET_ID, id)
		if more != nil {
			more(e)
		}
	})
}

// counter names the counter of what is denied; new is for making it.
func (t *table) counter(isNew bool) attrs {
	return func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_OBJ_TABLE, tableName)
		e.String(unix.NFTA_OBJ_NAME, "denied")
		e.Uint32(unix.NFTA_OBJ_TYPE, objCounter)
		if isNew {
			nest(e, unix.NFTA_OBJ_DATA, func(*netlink.AttributeEncoder) {})
		}
	}
}

// change makes the elements of a set others.
func (t *table) change(b *batch, set string, was, is Set) {
	t.send(b, unix.NFT_MSG_NEWSETELEM, netlink.Create, set, without(is, was))
	t.send(b, unix.NFT_MSG_DELSETELEM, 0, set, without(was, is))
}

func without(s, other Set) (out []Tuple) {
	for x := range s {
		if _, ok := other[x]; !ok {
			out = append(out, x)
		}
	}
	return out
}

// maxElements is how many elements a message has at most: the length of an
// attribute has 16 bits.
const maxElements = 512

func (t *table) send(b *batch, kind uint16, flags netlink.HeaderFlags, set string, list []Tuple) {
	for len(list) > 0 {
		n := min(len(list), maxElements)
		b.add(kind, t.family, flags, func(e *netlink.AttributeEncoder) {
			t.ofSet(set)(e)
			nest(e, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(e *netlink.AttributeEncoder) {
				for i := range list[:n] {
					nest(e, unix.NFTA_LIST_ELEM, func(e *netlink.AttributeEncoder) {
						nest(e, setElemKey, value(t.key(&list[i])))
					})
				}
			})
		})
		list = list[n:]
	}
}

func (t *table) ofSet(name string) attrs {
	return func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_SET_ELEM_LIST_TABLE, tableName)
		e.String(unix.NFTA_SET_ELEM_LIST_SET, name)
	}
}

// elements reads what a set has: none if it is not there.
func (t *table) elements(set string) (Set, error) {
	out := Set{}
	msgs, err := ask(unix.NFT_MSG_GETSETELEM, t.family, netlink.Dump, t.ofSet(set))
	if err != nil {
		return out, err
	}
	for _, m := range msgs {
		err := walk(m, []uint16{unix.NFTA_SET_ELEM_LIST_ELEMENTS, unix.NFTA_LIST_ELEM, setElemKey, unix.NFTA_DATA_VALUE}, func(key []byte) error {
			x, err := t.tuple(key)
			out[x] = struct{}{}
			return err
		})
		if err != nil {
			return Set{}, err
		}
	}
	return out, nil
}

// look returns the table's handle, which no other table has had since the kernel
// started. It fails with ENOENT if the table is not there.
func (t *table) look() (handle uint64, err error) {
	msgs, err := ask(unix.NFT_MSG_GETTABLE, t.family, 0, t.named(unix.NFTA_TABLE_NAME))
	for _, m := range msgs {
		err = walk(m, []uint16{tableHandle}, func(b []byte) error {
			if len(b) == 8 {
				handle = binary.BigEndian.Uint64(b)
			}
			return nil
		})
	}
	return handle, err
}

// drops reads how many packets were denied.
func (t *table) drops() (n uint64, err error) {
	msgs, err := ask(unix.NFT_MSG_GETOBJ, t.family, 0, t.counter(false))
	for _, m := range msgs {
		err = walk(m, []uint16{unix.NFTA_OBJ_DATA, unix.NFTA_COUNTER_PACKETS}, func(b []byte) error {
			if len(b) == 8 {
				n = binary.BigEndian.Uint64(b)
			}
			return nil
		})
	}
	return n, err
}
