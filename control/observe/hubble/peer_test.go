package hubble_test

import (
	"context"
	"maps"
	"testing"
	"time"

	peerpb "github.com/cilium/cilium/api/v1/peer"
	"google.golang.org/grpc"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
)

// cluster is a source that knows nodes.
type cluster struct {
	*observetest.Source
	nodes map[string]string
}

func (c cluster) Nodes() map[string]string { return c.nodes }

// notifications keeps what a Peer service tells.
type notifications struct {
	grpc.ServerStreamingServer[peerpb.ChangeNotification]
	ctx context.Context
	got chan *peerpb.ChangeNotification
}

func (n notifications) Context() context.Context { return n.ctx }

func (n notifications) Send(c *peerpb.ChangeNotification) error { n.got <- c; return nil }

// Relay is told of every node, and of an address only where that node answers.
func TestPeers(t *testing.T) {
	nodes := map[string]string{"own": "192.0.2.1", "b.c": "192.0.2.2", "six": "2001:db8::1", "local": "127.0.0.2"}
	tls := hubble.TLS{Cert: "c", Key: "k"}
	named := tls
	named.ServerName = "all.example"
	for _, c := range []struct {
		name, listen string
		tls          hubble.TLS
		want         map[string]string // address, and the name for TLS
	}{
		{"socket", "", hubble.TLS{}, map[string]string{"own": "unix:///h.sock ", "b.c": " ", "six": " ", "local": " "}},
		{"loopback", "127.0.0.1:4244", hubble.TLS{}, map[string]string{"own": "127.0.0.1:4244 ", "b.c": " ", "six": " ", "local": "127.0.0.2:4244 "}},
		{"all addresses", "0.0.0.0:4244", tls, map[string]string{"own": "192.0.2.1:4244 own.default.hubble-grpc.cilium.io",
			"b.c": "192.0.2.2:4244 b-c.default.hubble-grpc.cilium.io", "six": "[2001:db8::1]:4244 six.default.hubble-grpc.cilium.io",
			"local": "127.0.0.2:4244 local.default.hubble-grpc.cilium.io"}},
		{"one address", "192.0.2.9:1", named, map[string]string{"own": "192.0.2.9:1 all.example", "b.c": "192.0.2.2:1 all.example",
			"six": "[2001:db8::1]:1 all.example", "local": "127.0.0.2:1 all.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, err := observetest.New(64)
			if err != nil {
				t.Fatal(err)
			}
			s := hubble.New(hubble.Config{Node: "own", Socket: "/h.sock", Listen: c.listen, TLS: c.tls, Streams: 1}, observe.New(src, src, 8, 0), cluster{src, nodes})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			n := notifications{ctx: ctx, got: make(chan *peerpb.ChangeNotification, 16)}
			ended := make(chan struct{})
			go func() { _ = s.Notify(nil, n); close(ended) }()
			got := map[string]string{}
			for len(got) < len(c.want) {
				select {
				case p := <-n.got:
					got[p.GetName()] = p.GetAddress() + " " + p.GetTls().GetServerName()
				case <-ctx.Done():
					t.Fatal("not all are told of")
				}
			}
			cancel()
			<-ended
			if !maps.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// A Relay that is told of peers is one stream, not two.
func TestPeersAreOneStream(t *testing.T) {
	n := start(t, 64, 8, 1)
	stream, err := peerpb.NewPeerClient(n.dial(t)).Notify(t.Context(), &peerpb.NotifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := stream.Recv(); err != nil {
		t.Errorf("told of %v, %v", p, err)
	}
}
