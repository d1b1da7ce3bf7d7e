// Package hubble serves the flows of a node by Hubble's Observer API
// (github.com/cilium/cilium/api/v1/observer), with its Peer service and gRPC's
// health service, so that the hubble CLI, Relay and UI work unmodified.
//
// Each request runs on a goroutine of its own, reads the history at its own pace
// and turns what passes its filters into messages: less than a microsecond a flow,
// half of it gRPC's, and as much again if it has filters. A client that doesn't read is held up by HTTP/2's flow
// control; it costs a bounded amount of memory, is told what it missed when it
// reads again, and never holds up a worker or another client.
package hubble

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/sluice-net/sluice/control/observe"
)

// observerService is the name under which Hubble's own server reports its health
// (pkg/hubble/api/v1 of Cilium).
const observerService = "hubble.server.Observer"

// maxRequest is the size of the largest request that is read, bytes.
const maxRequest = 1 << 20

// Server answers Hubble's clients.
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
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest), grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxConcurrentStreams(128), // of one connection
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.MaxHeaderListSize(1 << 14),
		grpc.WriteBufferSize(1 << 16), grpc.SharedWriteBuffer(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
	type served struct {
		l   net.Listener
		srv *grpc.Server
	}
	var all []served
	stop := func() {
		for _, x := range all {
			x.srv.Stop()
		}
	}
	defer stop()
	add := func(l net.Listener, options []grpc.ServerOption) {
		srv := grpc.NewServer(options...)
		s.register(srv)
		all = append(all, served{l, srv})
	}
	if s.cfg.Socket != "" {
		l, err := listenUnix(s.cfg.Socket)
		if err != nil {
			return err
		}
		defer removeSocket(s.cfg.Socket, l)
		add(l, options)
	}
	if s.cfg.Listen != "" {
		l, err := net.Listen("tcp", s.cfg.Listen)
		if err != nil {
			return fmt.Errorf("listen for Hubble clients: %w", err)
		}
		if s.cfg.TLS.Cert != "" {
			conf, err := s.cfg.TLS.config()
			if err != nil {
				return errors.Join(err, l.Close())
			}
			options = append(options, grpc.Creds(credentials.NewTLS(conf)))
		}
		add(l, options)
	}
	ended := make(chan error, len(all)+1)
	for _, x := range all {
		go func() { ended <- x.srv.Serve(x.l) }()
	}
	defer context.AfterFunc(ctx, func() { ended <- nil })()
	if err := <-ended; err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve Hubble clients: %w", err)
	}
	return nil
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

// listenUnix listens with mode 0600, without a moment in which others could
// connect. A socket that nobody answers at is replaced.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create folder of Hubble socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen at %s: another server answers there", path)
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(fresh)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for Hubble clients: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("put Hubble socket in place: %w", err), l.Close(), os.Remove(fresh))
	}
	return l, nil
}

// removeSocket removes the socket's file, unless a successor has replaced it:
// then somebody answers there.
func removeSocket(path string, l net.Listener) {
	_ = l.Close()
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return
	}
	_ = os.Remove(path)
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
	release, err := s.admit()
	if err != nil {
		return err
	}
	defer release()
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-s.ctx.Done():
		return status.Error(codes.Unavailable, "the agent is going away")
	}
}
