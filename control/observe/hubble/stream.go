package hubble

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// stream is the answer to a request, on the wire as gRPC has it (PROTOCOL-HTTP2.md
// of gRPC). grpc-go would carry each message by itself from goroutine to goroutine
// and into a frame of its own, which costs more than to write it; here they are
// gathered and written many at a time, which is less to read, too. It belongs to one
// goroutine.
type stream struct {
	w   http.ResponseWriter
	enc *encoder
	buf *[]byte // messages that are not written yet, or nil: of chunks
}

// chunk is how many bytes are written at once while there is more to come, and
// mostMessage how much room a message finds beside them, mostly.
const (
	chunk       = 64 << 10
	mostMessage = 4 << 10
)

var chunks = sync.Pool{New: func() any {
	b := make([]byte, 0, chunk+mostMessage)
	return &b
}}

func newStream(w http.ResponseWriter) *stream {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h["Trailer"] = []string{trailerStatus, trailerMessage}
	h["Date"] = nil // nobody asks for it
	return &stream{w: w}
}

// room is where the next message goes.
func (s *stream) room() []byte {
	if s.buf == nil {
		s.buf = chunks.Get().(*[]byte)
	}
	return *s.buf
}

// view sends a view of the encoder's event.
func (s *stream) view(i int) error { return s.sent(s.enc.append(s.room(), i)) }

// message sends a message.
func (s *stream) message(m proto.Message) error {
	b := s.room()
	from := len(b)
	b, err := proto.MarshalOptions{}.MarshalAppend(appendPrefix(b, 0), m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	binary.BigEndian.PutUint32(b[from+1:], uint32(len(b)-from-prefixLen))
	return s.sent(b)
}

// sent notes what is in the room now.
func (s *stream) sent(b []byte) error {
	if *s.buf = b; len(b) < chunk {
		return nil
	}
	return s.write()
}

func (s *stream) write() error {
	_, err := s.w.Write(*s.buf)
	*s.buf = (*s.buf)[:0]
	return err
}

// flush writes what there is, and lets go of the memory, for who has nothing to
// send for now. The first one tells the client that it is served.
func (s *stream) flush() (err error) {
	if s.buf != nil {
		err = s.write()
		s.done()
	}
	if f, ok := s.w.(http.Flusher); ok {
		f.Flush()
	}
	return err
}

func (s *stream) done() {
	if s.buf != nil && cap(*s.buf) <= 2*chunk {
		chunks.Put(s.buf)
	}
	s.buf = nil
}

// end says how the request went.
func (s *stream) end(err error) {
	if s.buf != nil {
		_ = s.write() // fails if the client has gone, to which nothing can be said
		s.done()
	}
	st := status.Convert(err)
	s.w.Header().Set(trailerStatus, strconv.Itoa(int(st.Code())))
	s.w.Header().Set(trailerMessage, escape(st.Message()))
}
