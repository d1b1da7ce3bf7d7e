// Package hubble serves the flows of a node by Hubble's Observer API
// (github.com/cilium/cilium/api/v1/observer), with its Peer service and gRPC's
// health service, so that the hubble CLI, Relay and UI work unmodified.
//
// Each request runs on a goroutine of its own, reads the history at its own pace
// and writes what passes its filters: 0.2 to 0.3 µs a message, and several times that
// if it has filters, which look at messages. A client that doesn't read is held
// up by HTTP/2's flow control; it costs a bounded amount of memory, is told what it
// missed when it reads again, and never holds up a worker or another client.
package hubble

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/server"
)

// observerService is the name under which Hubble's own server reports its health
// (pkg/hubble/api/v1 of Cilium).
const observerService = "hubble.server.Observer"

// What a client may take of memory and time until its request is understood: each
// of the streams a request, which names some thousand pods or addresses at most.
const (
	maxRequest      = 64 << 10 // bytes
	requestWithin   = 10 * time.Second
	idleFor         = 10 * time.Minute // a connection without requests stays for so long
	mostConnections = 256              // of one listener
)

// Server answers Hubble's clients. Of the Observer service it registers all but
// GetFlows, which its handler answers.
type Server struct {
	observerpb.UnimplementedObserverServer
	peerpb.UnimplementedPeerServer
	cfg      Config
	observer *observe.Observer
	peers    Peers
	ctx      context.Context // ends with Serve
	streams  atomic.Int64
}

// New returns a server for the flows of observer.
func New(cfg Config, observer *observe.Observer, peers Peers) *Server {
	return &Server{cfg: cfg, observer: observer, peers: peers, ctx: context.Background()}
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	s.ctx = ctx
	rest := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest))
	defer rest.Stop()
	s.register(rest)
	var listeners []net.Listener
	defer func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	if s.cfg.Socket != "" {
		l, err := listenUnix(s.cfg.Socket)
		if err != nil {
			return err
		}
		defer removeSocket(s.cfg.Socket, l)
		listeners = append(listeners, netutil.LimitListener(l, mostConnections))
	}
	if s.cfg.Listen != "" {
		l, err := net.Listen("tcp", s.cfg.Listen)
		if err != nil {
			return fmt.Errorf("listen for Hubble clients: %w", err)
		}
		l = netutil.LimitListener(l, mostConnections)
		listeners = append(listeners, l)
		if s.cfg.TLS.Cert != "" {
			conf, err := s.cfg.TLS.config()
			if err != nil {
				return err
			}
			listeners[len(listeners)-1] = tls.NewListener(l, conf)
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- server.Run(ctx, l, s.http(rest)) }()
	}
	var errs []error
	for range listeners {
		if err := <-ended; err != nil {
			errs = append(errs, fmt.Errorf("serve Hubble clients: %w", err))
		}
		stop()
	}
	<-ctx.Done()
	return errors.Join(errs...)
}

// http is gRPC's transport: HTTP/2, on a socket without TLS too.
func (s *Server) http(rest http.Handler) *http.Server {
	srv := &http.Server{
		Handler: s.handler(rest), Protocols: &http.Protocols{},
		ReadHeaderTimeout: requestWithin, ReadTimeout: requestWithin, // of requests, not of streams that answer
		IdleTimeout: idleFor,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          128, // of one connection
			MaxReceiveBufferPerStream:     maxRequest,
			MaxReceiveBufferPerConnection: 2 * maxRequest,
			SendPingTimeout:               30 * time.Second, PingTimeout: 20 * time.Second,
		},
		ErrorLog: log.New(io.Discard, "", 0), // clients' faults
	}
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return srv
}

func (s *Server) register(srv *grpc.Server) {
	observerpb.RegisterObserverServer(srv, s)
	peerpb.RegisterPeerServer(srv, s)
	h := health.NewServer()
	for _, name := range []string{"", observerService, observerpb.Observer_ServiceDesc.ServiceName, peerpb.Peer_ServiceDesc.ServiceName} {
		h.SetServingStatus(name, healthpb.HealthCheckResponse_SERVING)
	}
	healthpb.RegisterHealthServer(srv, h)
}

// admit takes one of the streams.
func (s *Server) admit() (release func(), err error) {
	if n := s.streams.Add(1); n > int64(s.cfg.Streams) {
		s.streams.Add(-1)
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams are open, more are not served", s.cfg.Streams)
	}
	return func() { s.streams.Add(-1) }, nil
}

// ServerStatus implements observer.Observer.
func (s *Server) ServerStatus(context.Context, *observerpb.ServerStatusRequest) (*observerpb.ServerStatusResponse, error) {
	st := s.observer.Stats()
	return &observerpb.ServerStatusResponse{
		NumFlows: st.Held, MaxFlows: st.Cap, SeenFlows: st.Seen, FlowsRate: math.Round(st.PerSecond*100) / 100,
		UptimeNs: uint64(time.Since(st.Started)), Version: s.version(),
	}, nil
}

func (s *Server) version() string { return "sluice " + s.cfg.Version }

// GetNamespaces implements observer.Observer.
func (s *Server) GetNamespaces(context.Context, *observerpb.GetNamespacesRequest) (*observerpb.GetNamespacesResponse, error) {
	resp := &observerpb.GetNamespacesResponse{}
	for _, ns := range s.observer.Namespaces() {
		resp.Namespaces = append(resp.Namespaces, &observerpb.Namespace{Namespace: ns})
	}
	return resp, nil
}

// GetAgentEvents implements observer.Observer: there are none.
func (s *Server) GetAgentEvents(req *observerpb.GetAgentEventsRequest, stream grpc.ServerStreamingServer[observerpb.GetAgentEventsResponse]) error {
	return s.nothing(stream.Context(), req)
}

// GetDebugEvents implements observer.Observer: there are none.
func (s *Server) GetDebugEvents(req *observerpb.GetDebugEventsRequest, stream grpc.ServerStreamingServer[observerpb.GetDebugEventsResponse]) error {
	return s.nothing(stream.Context(), req)
}

// nothing answers a request for events that never come.
func (s *Server) nothing(ctx context.Context, req request) error {
	if err := (&query{}).times(req); err != nil || !req.GetFollow() {
		return err
	}
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-s.ctx.Done():
		return status.Error(codes.Unavailable, "the agent is going away")
	}
}
