package forward

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/dataplane/packet"
)

// What rules are made of: expressions, as nft's --debug=netlink shows them
// (include/uapi/linux/netfilter/nf_tables.h). Registers have 32 bits; a key
// begins at the first.

const (
	objCounter  = 1 // NFT_OBJECT_COUNTER
	setElemKey  = 1 // NFTA_SET_ELEM_KEY
	tableHandle = 4 // NFTA_TABLE_HANDLE

	headerNetwork, headerTransport = 1, 2 // NFT_PAYLOAD_NETWORK_HEADER …

	firstReg = unix.NFT_REG32_00

	drop = 0 // NF_DROP
)

// addRule adds a rule of parts to a chain.
func (t *table) addRule(b *batch, chain string, parts ...attrs) {
	b.add(unix.NFT_MSG_NEWRULE, t.family, netlink.Create|netlink.Append, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_RULE_TABLE, tableName)
		e.String(unix.NFTA_RULE_CHAIN, chain)
		nest(e, unix.NFTA_RULE_EXPRESSIONS, func(e *netlink.AttributeEncoder) {
			for _, p := range parts {
				p(e)
			}
		})
	})
}

// expr is one expression.
func expr(e *netlink.AttributeEncoder, name string, data attrs) {
	exprAt(e, unix.NFTA_LIST_ELEM, name, data)
}

func exprAt(e *netlink.AttributeEncoder, attr uint16, name string, data attrs) {
	nest(e, attr, func(e *netlink.AttributeEncoder) {
		e.String(unix.NFTA_EXPR_NAME, name)
		nest(e, unix.NFTA_EXPR_DATA, data)
	})
}

func value(b []byte) attrs {
	return func(e *netlink.AttributeEncoder) { e.Bytes(unix.NFTA_DATA_VALUE, b) }
}

// conn loads a key from a packet's connection: two addresses, the protocol, and
// a port of the second one's direction.
func (t *table) conn(dir1 uint8, addr1 uint32, dir2 uint8, addr2, port uint32) attrs {
	words := uint32(t.addrLen / 4)
	return func(e *netlink.AttributeEncoder) {
		ctDirected(e, firstReg, addr1, dir1)
		ctDirected(e, firstReg+words, addr2, dir2)
		ct(e, firstReg+2*words, unix.NFT_CT_PROTOCOL)
		ctDirected(e, firstReg+2*words+1, port, dir2)
	}
}

func ct(e *netlink.AttributeEncoder, reg, key uint32) {
	expr(e, "ct", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_CT_DREG, reg)
		e.Uint32(unix.NFTA_CT_KEY, key)
	})
}

func ctDirected(e *netlink.AttributeEncoder, reg, key uint32, dir uint8) {
	expr(e, "ct", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_CT_DREG, reg)
		e.Uint32(unix.NFTA_CT_KEY, key)
		e.Uint8(unix.NFTA_CT_DIRECTION, dir)
	})
}

// header loads a key from the packet itself.
func (t *table) header() attrs {
	words, addrLen := uint32(t.addrLen/4), uint32(t.addrLen)
	return func(e *netlink.AttributeEncoder) {
		payload(e, firstReg, headerNetwork, t.srcAt, addrLen)
		payload(e, firstReg+words, headerNetwork, t.dstAt, addrLen)
		expr(e, "meta", func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_META_DREG, firstReg+2*words)
			e.Uint32(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO)
		})
		payload(e, firstReg+2*words+1, headerTransport, 2, 2)
	}
}

func payload(e *netlink.AttributeEncoder, reg, base, offset, length uint32) {
	expr(e, "payload", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_PAYLOAD_DREG, reg)
		e.Uint32(unix.NFTA_PAYLOAD_BASE, base)
		e.Uint32(unix.NFTA_PAYLOAD_OFFSET, offset)
		e.Uint32(unix.NFTA_PAYLOAD_LEN, length)
	})
}

// lookup goes on with the rule if a set has the key.
func lookup(set string) attrs {
	return func(e *netlink.AttributeEncoder) {
		expr(e, "lookup", func(e *netlink.AttributeEncoder) {
			e.String(unix.NFTA_LOOKUP_SET, set)
			e.Uint32(unix.NFTA_LOOKUP_SREG, firstReg)
		})
	}
}

// inState goes on with the rule if the connection's state is one of bits.
func inState(bits uint32) attrs {
	mask := binary.NativeEndian.AppendUint32(nil, bits)
	return func(e *netlink.AttributeEncoder) {
		ct(e, firstReg, unix.NFT_CT_STATE)
		expr(e, "bitwise", func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_BITWISE_SREG, firstReg)
			e.Uint32(unix.NFTA_BITWISE_DREG, firstReg)
			e.Uint32(unix.NFTA_BITWISE_LEN, 4)
			nest(e, unix.NFTA_BITWISE_MASK, value(mask))
			nest(e, unix.NFTA_BITWISE_XOR, value(make([]byte, 4)))
		})
		compare(e, unix.NFT_CMP_NEQ, make([]byte, 4))
	}
}

// ofProtocol goes on with the rule if the connection is of a protocol.
func ofProtocol(proto packet.Proto) attrs {
	return func(e *netlink.AttributeEncoder) {
		ct(e, firstReg, unix.NFT_CT_PROTOCOL)
		compare(e, unix.NFT_CMP_EQ, []byte{byte(proto)})
	}
}

// compare goes on with the rule if the first register is, or is not, as a value.
func compare(e *netlink.AttributeEncoder, op uint32, with []byte) {
	expr(e, "cmp", func(e *netlink.AttributeEncoder) {
		e.Uint32(unix.NFTA_CMP_SREG, firstReg)
		e.Uint32(unix.NFTA_CMP_OP, op)
		nest(e, unix.NFTA_CMP_DATA, value(with))
	})
}

// counted counts in a named counter.
func counted(name string) attrs {
	return func(e *netlink.AttributeEncoder) {
		expr(e, "objref", func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_OBJREF_IMM_TYPE, objCounter)
			e.String(unix.NFTA_OBJREF_IMM_NAME, name)
		})
	}
}

// verdict ends the rule; chain is where to go.
func verdict(code int32, chain string) attrs {
	return func(e *netlink.AttributeEncoder) {
		expr(e, "immediate", func(e *netlink.AttributeEncoder) {
			e.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			nest(e, unix.NFTA_IMMEDIATE_DATA, func(e *netlink.AttributeEncoder) {
				nest(e, unix.NFTA_DATA_VERDICT, func(e *netlink.AttributeEncoder) {
					e.Int32(unix.NFTA_VERDICT_CODE, code)
					if chain != "" {
						e.String(unix.NFTA_VERDICT_CHAIN, chain)
					}
				})
			})
		})
	}
}
