package hubble

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-net/sluice/control/observe/filter"
)

// Peers tells which nodes there are.
type Peers interface {
	// Nodes returns the addresses of the cluster's nodes by name, as far as the
	// agent knows them; its own may be missing.
	Nodes() map[string]string
	// NodeLabels returns the labels of the agent's own node as "key=value", sorted.
	// It is called often.
	NodeLabels() []string
}

// peerPoll is how often the nodes are looked at.
const peerPoll = 2 * time.Second

// peer is a node as Relay is told of it.
type peer struct {
	address, serverName string
	tls                 bool
}

// nodes returns all peers. Every node serves on the same port as this one; those
// that can't be reached have no address, which Relay shows as unavailable.
func (s *Server) nodes() map[string]peer {
	out := map[string]peer{}
	for name, host := range s.peers.Nodes() {
		if name != s.cfg.Node {
			out[name] = s.other(name, host)
		}
	}
	out[s.cfg.Node] = s.own()
	return out
}

// own is this node. Where it listens at all of its addresses, Relay must find it by
// that which the cluster knows.
func (s *Server) own() peer {
	if s.cfg.Listen == "" {
		return peer{address: "unix://" + s.cfg.Socket}
	}
	host, port, _ := net.SplitHostPort(s.cfg.Listen)
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		if known := s.peers.Nodes()[s.cfg.Node]; known != "" {
			host = known
		}
	}
	return s.at(s.cfg.Node, host, port)
}

// other is another node: from one that serves on a loopback address, or a socket,
// nothing can be said of others but of those at loopback addresses.
func (s *Server) other(name, host string) peer {
	own, port, err := net.SplitHostPort(s.cfg.Listen)
	if err != nil || loopback(own) && !loopback(host) {
		return peer{}
	}
	return s.at(name, host, port)
}

func (s *Server) at(name, host, port string) peer {
	p := peer{address: net.JoinHostPort(host, port), tls: s.cfg.TLS.Cert != ""}
	if p.tls {
		p.serverName = s.cfg.TLS.ServerName
	}
	if p.tls && p.serverName == "" {
		p.serverName = TLSName(name)
	}
	return p
}

// TLSName is the name that a node's certificate has where nothing else is
// configured: that which Cilium gives it, so that certificates made for Hubble serve.
func TLSName(node string) string {
	return strings.ReplaceAll(node, ".", "-") + "." + filter.DefaultCluster + ".hubble-grpc.cilium.io"
}

// Notify implements peer.Peer: all nodes first, then what changes.
func (s *Server) Notify(_ *peerpb.NotifyRequest, stream grpc.ServerStreamingServer[peerpb.ChangeNotification]) error {
	known := map[string]peer{}
	for tick := time.Tick(peerPoll); ; {
		if err := s.notify(known, stream.Send); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-s.ctx.Done():
			return status.Error(codes.Unavailable, "the agent is going away")
		case <-tick:
		}
	}
}

// notify tells how the nodes differ from what was known.
func (s *Server) notify(known map[string]peer, send func(*peerpb.ChangeNotification) error) error {
	now := s.nodes()
	tell := func(name string, p peer, kind peerpb.ChangeNotificationType) error {
		n := &peerpb.ChangeNotification{Name: name, Address: p.address, Type: kind}
		if p.tls {
			n.Tls = &peerpb.TLS{ServerName: p.serverName}
		}
		return send(n)
	}
	for name, p := range known {
		if _, there := now[name]; !there {
			if err := tell(name, p, peerpb.ChangeNotificationType_PEER_DELETED); err != nil {
				return err
			}
			delete(known, name)
		}
	}
	for name, p := range now {
		old, there := known[name]
		if there && old == p {
			continue
		}
		kind := peerpb.ChangeNotificationType_PEER_ADDED
		if there {
			kind = peerpb.ChangeNotificationType_PEER_UPDATED
		}
		if err := tell(name, p, kind); err != nil {
			return err
		}
		known[name] = p
	}
	return nil
}

// GetNodes implements observer.Observer: an agent speaks for its own node.
func (s *Server) GetNodes(context.Context, *observerpb.GetNodesRequest) (*observerpb.GetNodesResponse, error) {
	p := s.nodes()[s.cfg.Node]
	st := s.observer.Stats()
	return &observerpb.GetNodesResponse{Nodes: []*observerpb.Node{{
		Name: s.cfg.Node, Version: s.version(), Address: p.address, State: relaypb.NodeState_NODE_CONNECTED,
		Tls: &observerpb.TLS{Enabled: p.tls, ServerName: p.serverName}, UptimeNs: uint64(time.Since(st.Started)),
		NumFlows: st.Held, MaxFlows: st.Cap, SeenFlows: st.Seen,
	}}}, nil
}
