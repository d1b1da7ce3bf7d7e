package listen

import (
	"encoding/binary"
	"fmt"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// prefixLen is the length of what gRPC puts before a message: whether it is
// compressed, and its length.
const prefixLen = 5

// messages cuts a stream into gRPC's messages.
type messages struct{ rest []byte }

// take calls visit with each message that data completes.
func (m *messages) take(data []byte, visit func([]byte) error) error {
	if len(m.rest) > 0 {
		m.rest = append(m.rest, data...)
		data = m.rest
	}
	for len(data) >= prefixLen {
		end := prefixLen + int(binary.BigEndian.Uint32(data[1:]))
		if len(data) < end {
			break
		}
		if err := visit(data[prefixLen:end]); err != nil {
			return err
		}
		data = data[end:]
	}
	m.rest = append(m.rest[:0], data...)
	return nil
}

// Field numbers of GetFlowsResponse and of Flow.
const (
	numFlow = 1
	numLost = 3
	numUUID = 34
)

// message notes a GetFlowsResponse.
func (t *Tally) message(m []byte) error {
	for len(m) > 0 {
		num, value, n := field(m)
		if n < 0 {
			return fmt.Errorf("message: %w", protowire.ParseError(n))
		}
		switch num {
		case numFlow:
			number, err := flowNumber(value)
			if err == nil {
				t.flow(number)
			}
			return err
		case numLost:
			var l flowpb.LostEvent
			if err := proto.Unmarshal(value, &l); err != nil {
				return fmt.Errorf("loss: %w", err)
			}
			t.lost(&l)
			return nil
		}
		m = m[n:]
	}
	return nil
}

// field returns the first field of a message, its value if that is bytes, and its
// length, less than 0 if it is malformed.
func field(m []byte) (num protowire.Number, value []byte, length int) {
	num, kind, n := protowire.ConsumeTag(m)
	if n < 0 {
		return num, nil, n
	}
	if kind != protowire.BytesType {
		if length = protowire.ConsumeFieldValue(num, kind, m[n:]); length >= 0 {
			length += n
		}
		return num, nil, length
	}
	if value, length = protowire.ConsumeBytes(m[n:]); length >= 0 {
		length += n
	}
	return num, value, length
}

// flowNumber returns the number of a Flow.
func flowNumber(m []byte) (uint64, error) {
	for len(m) > 0 {
		num, value, n := field(m)
		if n < 0 {
			return 0, fmt.Errorf("flow: %w", protowire.ParseError(n))
		}
		if num == numUUID {
			return numberOf(value)
		}
		m = m[n:]
	}
	return 0, fmt.Errorf("flow without an id")
}

// numberOf returns the number that is in a flow's id: what is below the variant of a
// UUID, the last 62 bits.
func numberOf(uuid []byte) (n uint64, err error) {
	const digits, from = 36, 19
	if len(uuid) != digits {
		return 0, fmt.Errorf("id %q of a flow: want a UUID", uuid)
	}
	for i, c := range uuid[from:] {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint64(c-'a'+10)
		case c != '-' || i != 4:
			return 0, fmt.Errorf("id %q of a flow: want a UUID", uuid)
		}
	}
	return n & (1<<62 - 1), nil
}
