// Package observe is what sluice observe and sluice policy suggest are made of: a
// client of Hubble's Observer API, which the agent of each node serves, that puts
// the views of an event together again, and ways to show what comes.
//
// Filters are applied by the server, and by the workers where they can be. What
// was lost on the way is an event of its own, never left out. An Events belongs
// to one goroutine.
package observe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Server says where flows are served, and how its name is checked.
type Server struct {
	Address       string // unix:///PATH, HOST:PORT or tls://HOST:PORT
	TLS           bool
	AllowInsecure bool // don't check the server's certificate
	CAs           []string
	Cert, Key     string // of the client, files
	Name          string // that the server's certificate must have
}

// Dial returns a connection that is made on use.
func (s *Server) Dial() (*grpc.ClientConn, error) {
	target, isTLS := strings.CutPrefix(s.Address, "tls://")
	creds := insecure.NewCredentials()
	if isTLS || s.TLS || s.AllowInsecure || s.Cert != "" || len(s.CAs) > 0 || s.Name != "" {
		conf, err := s.config()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(conf)
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.Address, err)
	}
	return conn, nil
}

func (s *Server) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Name, InsecureSkipVerify: s.AllowInsecure}
	if len(s.CAs) > 0 {
		conf.RootCAs = x509.NewCertPool()
	}
	for _, path := range s.CAs {
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read CA of server: %w", err)
		}
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA of server: no certificate in %s", path)
		}
	}
	if s.Cert != "" || s.Key != "" {
		cert, err := tls.LoadX509KeyPair(s.Cert, s.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate of client: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

// Selection says which flows are wanted.
type Selection struct {
	Last, First  uint64 // events; at most one of them is not 0
	All          bool
	Follow       bool
	Since, Until time.Time // zero: none
	Allow, Deny  []*flowpb.FlowFilter
	// Away, if not nil, has a server that is followed and goes away waited for: it
	// is called with the reason when that happens, and with nil when the server is
	// back.
	Away func(err error)
}

// DefaultLast is how many events are shown where nothing else is said.
const DefaultLast = 20

// Validate reports what does not go together.
func (s *Selection) Validate() error {
	switch {
	case s.First > 0 && s.Last > 0:
		return errors.New("--first and --last can't be combined")
	case s.First > 0 && s.Follow:
		return errors.New("--first and --follow can't be combined")
	case s.All && (s.First > 0 || s.Last > 0):
		return errors.New("--all can't be combined with --first and --last")
	case !s.Since.IsZero() && !s.Until.IsZero() && s.Until.Before(s.Since):
		return errors.New("--until is before --since")
	}
	return nil
}

// mostViews is how many flows of Hubble's an event is at most.
const mostViews = 2

func (s *Selection) request() *observerpb.GetFlowsRequest {
	r := &observerpb.GetFlowsRequest{Follow: s.Follow, First: s.First > 0, Whitelist: s.Allow, Blacklist: s.Deny,
		Number: (s.First + s.Last) * mostViews}
	if !s.Since.IsZero() {
		r.Since = timestamppb.New(s.Since)
		if s.First == 0 {
			r.Number = 0 // which would be that of the first ones
		}
	}
	if !s.Until.IsZero() {
		r.Until = timestamppb.New(s.Until)
	}
	if s.All || s.First+s.Last > 1<<62 {
		r.Number = ^uint64(0)
	}
	return r
}

// Read calls visit with the events that are wanted, in their order, until there
// are no more or ctx ends, which is no error. With a Last, what came before the
// last ones is left out. nothing, if not nil, is called when what came was
// visited and more takes its time.
func Read(ctx context.Context, client observerpb.ObserverClient, s *Selection, visit func(*Event) error, nothing func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of what is asked for no more, the stream ends, and who reads it
	patient := s.Follow && s.Away != nil
	if patient { // only a server that was there is waited for
		if _, err := client.ServerStatus(ctx, &observerpb.ServerStatusRequest{}); err != nil {
			return remote(ctx, err)
		}
	}
	stream, err := client.GetFlows(ctx, s.request())
	if err != nil {
		return remote(ctx, err)
	}
	r := &reading{limiter: limiter{last: int(min(s.Last, 1<<30)), first: int(min(s.First, 1<<30)), follow: s.Follow, began: time.Now(), visit: visit},
		nothing: nothing}
	if patient {
		r.place = newPlace(time.Now())
	}
	for {
		err = r.read(ctx, stream)
		if !patient || !away(err) {
			return err
		}
		if stream, err = r.again(ctx, client, s, err); err != nil || stream == nil {
			return err
		}
	}
}

// away reports whether an error of remote is that the server can't be reached.
func away(err error) bool { return status.Code(errors.Unwrap(err)) == codes.Unavailable }

// reading is a Read under way.
type reading struct {
	limiter limiter
	joiner  joiner
	nothing func() error
	place   *place // where it is, or nil
}

// read reads a stream to its end.
func (r *reading) read(ctx context.Context, stream observerpb.Observer_GetFlowsClient) (err error) {
	arriving, fault := receive(ctx, stream)
	for {
		var resp *observerpb.GetFlowsResponse
		var more, quiet bool
		select {
		case resp, more = <-arriving:
		default:
			resp, more, quiet = await(arriving)
		}
		switch {
		case quiet:
			if err = errors.Join(r.joiner.flush(r.limiter.take), r.limiter.quiet()); err == nil && r.nothing != nil {
				err = r.nothing()
			}
		case more:
			if r.place == nil || r.place.fresh(resp) {
				err = r.joiner.add(resp, r.limiter.take)
			}
		default:
			if err = errors.Join(r.joiner.flush(r.limiter.take), r.limiter.end()); err == nil {
				return remote(ctx, *fault)
			}
		}
		if errors.Is(err, errEnough) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// await waits for a message, but not for long.
func await(arriving <-chan *observerpb.GetFlowsResponse) (resp *observerpb.GetFlowsResponse, more, quiet bool) {
	limit := time.NewTimer(settle)
	defer limit.Stop()
	select {
	case resp, more = <-arriving:
		return resp, more, false
	case <-limit.C:
		return nil, true, true
	}
}

// settle is how long an event waits for its other view.
const settle = 100 * time.Millisecond

// receive reads in the background; the error is valid when the channel is
// closed.
func receive(ctx context.Context, stream observerpb.Observer_GetFlowsClient) (<-chan *observerpb.GetFlowsResponse, *error) {
	out := make(chan *observerpb.GetFlowsResponse, 256)
	fault := new(error)
	go func() {
		defer close(out)
		for {
			resp, err := stream.Recv()
			if err != nil {
				*fault = err
				return
			}
			select {
			case out <- resp:
			case <-ctx.Done():
				*fault = ctx.Err()
				return
			}
		}
	}()
	return out, fault
}

// errEnough ends a Read that has what it wants.
var errEnough = errors.New("enough")

// remote makes sense of how a stream ended.
func remote(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, io.EOF) || ctx.Err() != nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		if s.Code() == codes.InvalidArgument {
			return &RefusedError{s.Message()}
		}
		if _, bounded := ctx.Deadline(); bounded && s.Code() == codes.DeadlineExceeded {
			return nil // the server knows our time limit too, and its clock was first
		}
		return &streamError{s}
	}
	return fmt.Errorf("read flows: %w", err)
}

// streamError is how a server ended a stream.
type streamError struct{ status *status.Status }

func (e *streamError) Error() string {
	return fmt.Sprintf("%s: %s", e.status.Code(), e.status.Message())
}

func (e *streamError) Unwrap() error { return e.status.Err() }

// RefusedError is a request that the server does not understand.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// limiter keeps the last events back until it is known which they are.
type limiter struct {
	first, last int // 0: no limit
	follow      bool
	began       time.Time
	held        []*Event
	live        bool // the history is through
	visit       func(*Event) error
	seen        int
}

func (l *limiter) take(e *Event) error {
	switch {
	case l.last == 0 || l.live:
		if err := l.visit(e); err != nil {
			return err
		}
		if l.seen++; l.first > 0 && l.seen == l.first {
			return errEnough
		}
		return nil
	case l.follow && (e.Time.After(l.began) || len(l.held) == mostViews*l.last):
		// What comes now is no history any more. By clocks that differ it may not
		// have been for a while: rather show too much.
		if !e.Time.After(l.began) {
			l.last = len(l.held)
		}
		if err := l.end(); err != nil {
			return err
		}
		return l.visit(e)
	}
	if l.held = append(l.held, e); !l.follow && len(l.held) >= 2*l.last+1024 {
		l.held = append(l.held[:0], l.held[len(l.held)-l.last:]...)
	}
	return nil
}

// quiet ends the history of a stream that goes on.
func (l *limiter) quiet() error {
	if !l.follow || l.live {
		return nil
	}
	return l.end()
}

func (l *limiter) end() error {
	held := l.held[max(0, len(l.held)-max(l.last, 1)):]
	l.held, l.live = nil, true
	for _, e := range held {
		if err := l.visit(e); err != nil {
			return err
		}
	}
	return nil
}
