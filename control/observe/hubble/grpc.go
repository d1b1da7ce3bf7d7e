package hubble

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Of gRPC over HTTP/2 (PROTOCOL-HTTP2.md of gRPC).
const (
	contentType    = "application/grpc"
	headerTimeout  = "Grpc-Timeout"
	headerEncoding = "Grpc-Encoding"
	trailerStatus  = "Grpc-Status"
	trailerMessage = "Grpc-Message"
)

// handler answers GetFlows by itself, because of what its messages would cost (see
// stream), and has rest answer all other requests, and such that are unusual. A
// request counts as a stream before anything of it is read.
func (s *Server) handler(rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		release, err := s.admit()
		if err != nil {
			newStream(w).end(err)
			return
		}
		defer release()
		// grpc-go keeps all that comes, whether anybody asks for it or not.
		r.Body = http.MaxBytesReader(w, r.Body, prefixLen+maxRequest)
		limit, ok := usual(r)
		if !ok || r.URL.Path != observerpb.Observer_GetFlows_FullMethodName {
			rest.ServeHTTP(w, r)
			return
		}
		ctx := r.Context()
		if limit > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		out := newStream(w)
		out.end(s.getFlows(ctx, r.Body, out))
	})
}

// usual reports whether a request is one of gRPC for messages of protobuf that are
// not compressed, and its time limit; 0 for none.
func usual(r *http.Request) (limit time.Duration, ok bool) {
	kind, sub, _ := strings.Cut(r.Header.Get("Content-Type"), "+")
	if r.Method != http.MethodPost || r.ProtoMajor != 2 || kind != contentType || sub != "" && sub != "proto" {
		return 0, false
	}
	if e := r.Header.Get(headerEncoding); e != "" && e != "identity" {
		return 0, false
	}
	t := r.Header.Get(headerTimeout)
	if t == "" {
		return 0, true
	}
	n, err := strconv.ParseUint(t[:len(t)-1], 10, 32)
	unit := timeUnits[t[len(t)-1]]
	return min(time.Duration(n), mostTime/max(unit, 1)) * unit, err == nil && n > 0 && unit > 0
}

var timeUnits = map[byte]time.Duration{
	'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
}

// mostTime is a time limit that no client means.
const mostTime = 365 * 24 * time.Hour

// readMessage reads the one message of a request.
func readMessage(r io.Reader, m proto.Message) error {
	var head [prefixLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return status.Errorf(codes.Internal, "read request: %v", err)
	}
	if head[0] != 0 {
		return status.Error(codes.Internal, "the request says that it is compressed, and not how")
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxRequest {
		return status.Errorf(codes.ResourceExhausted, "request of %d bytes: %d at most", n, maxRequest)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return status.Errorf(codes.Internal, "read request: %v", err)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return status.Errorf(codes.Internal, "decode request: %v", err)
	}
	return nil
}

// escape writes a message as a trailer has it: percent-encoded.
func escape(message string) string {
	var out strings.Builder
	for i := range len(message) {
		if c := message[i]; c >= ' ' && c <= '~' && c != '%' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}
