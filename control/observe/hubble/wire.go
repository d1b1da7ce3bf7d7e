package hubble

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// prefixLen is the length of what gRPC puts before a message: that it is not
// compressed, and how long it is (PROTOCOL-HTTP2.md of gRPC).
const prefixLen = 5

func appendPrefix(b []byte, length int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(length))
}

// begin starts a field whose length is not known yet, and for which it leaves room
// bytes; end completes it.
func begin(b []byte, n protowire.Number, room int) (out []byte, at int) {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	for range room {
		b = append(b, 0)
	}
	return b, len(b)
}

func end(b []byte, at, room int) []byte {
	length := len(b) - at
	if need := protowire.SizeVarint(uint64(length)); need != room {
		for n := room; n < need; n++ {
			b = append(b, 0)
		}
		copy(b[at+need-room:], b[at:at+length])
		b = b[:at+need-room+length]
		at += need - room
		room = need
	}
	for i := at - room; i < at-1; i++ {
		b[i] = byte(length) | 0x80
		length >>= 7
	}
	b[at-1] = byte(length)
	return b
}

// What follows leaves out what is 0, as proto.Marshal does.

func appendUint(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func appendBool(b []byte, n protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return append(protowire.AppendTag(b, n, protowire.VarintType), 1)
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendTime(b []byte, n protowire.Number, ns int64) []byte {
	s, rest := ns/int64(time.Second), ns%int64(time.Second)
	if rest < 0 {
		s, rest = s-1, rest+int64(time.Second)
	}
	b, at := begin(b, n, 1)
	return end(appendUint(appendUint(b, 1, uint64(s)), 2, uint64(rest)), at, 1)
}

func appendMessage(b []byte, n protowire.Number, m proto.Message) []byte {
	// Of messages of strings and numbers Marshal takes all whose strings are valid;
	// Kubernetes' names are.
	wire, err := proto.Marshal(m)
	if err != nil {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), wire)
}
