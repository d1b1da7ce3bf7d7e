package hubble

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec
	"google.golang.org/grpc/mem"

	"github.com/sluice-net/sluice/control/observe"
)

// encoded is a message that is on the wire's form already.
type encoded struct{ data mem.BufferSlice }

// codec is gRPC's for protobuf, which also takes what is encoded.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(*encoded); ok {
		return e.data, nil
	}
	return c.CodecV2.Marshal(v)
}

// chunk is how much memory messages are written into that are sent one by one, and
// mostMessage how much room one should find there, bytes.
const (
	chunk       = 16 << 10
	mostMessage = 4 << 10
)

// sender encodes events into chunks, each of which goes back to gRPC's pool when the
// last of its messages is on its way. It belongs to one goroutine.
type sender struct {
	send func(any) error // grpc.ServerStream.SendMsg, which frees what it is given
	enc  *encoder
	room mem.Buffer // what messages are parts of, or nil
	free []byte     // of room: of no length, behind what is used
	used int
}

// flow sends a view of an event.
func (s *sender) flow(f *observe.Flow, view int) error {
	if s.room == nil {
		b := mem.DefaultBufferPool().Get(chunk)
		s.free, s.used = (*b)[:0], 0
		s.room = mem.NewBuffer(b, mem.DefaultBufferPool())
	}
	s.enc.begin(f)
	m := s.enc.append(s.free, view)
	var part mem.Buffer
	if len(m) > cap(s.free) {
		part = mem.SliceBuffer(m) // it has moved to memory of its own
		s.done()
	} else {
		part = s.room.Slice(s.used, s.used+len(m))
		if s.used, s.free = s.used+len(m), m[len(m):]; cap(s.free) < mostMessage {
			s.done()
		}
	}
	return s.send(&encoded{mem.BufferSlice{part}})
}

// done lets go of the chunk, for who has nothing to send for now.
func (s *sender) done() {
	if s.room != nil {
		s.room.Free()
		s.room, s.free = nil, nil
	}
}
