package hubble_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// node is a server with a source of events.
type node struct {
	*observetest.Source
	observer *observe.Observer
	conn     *grpc.ClientConn
	client   observerpb.ObserverClient
	socket   string
}

func start(t testing.TB, ring, history, streams int) *node {
	t.Helper()
	src, err := observetest.New(ring)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Source: src, observer: observe.New(src, src, history, event.WantAll), socket: filepath.Join(t.TempDir(), "h.sock")}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { n.observer.Run(ctx) })
	cfg := hubble.Config{Node: "node-1", Version: "test", Socket: n.socket, Streams: streams}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := hubble.New(cfg, n.observer, src).Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	n.conn = n.dial(t)
	n.client = observerpb.NewObserverClient(n.conn)
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return n
}

func (n *node) dial(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+n.socket, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// seen waits until the history has as many events.
func (n *node) seen(t testing.TB, events uint64) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, next := n.observer.Bounds(); next >= events {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d events don't come", events)
		}
	}
}

func (n *node) flows(t testing.TB, req *observerpb.GetFlowsRequest) []*flowpb.Flow {
	t.Helper()
	stream, err := n.client.GetFlows(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var out []*flowpb.Flow
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if f := resp.GetFlow(); f != nil {
			out = append(out, f)
		}
	}
}

// brief is a flow as a line.
func brief(f *flowpb.Flow) string {
	names := func(p []*flowpb.Policy) (s []string) {
		for _, x := range p {
			s = append(s, x.GetName())
		}
		return s
	}
	return strings.TrimSpace(fmt.Sprintf("%s/%s>%s/%s %v %v %d:%d %d %v %v %v %v", f.GetSource().GetNamespace(), f.GetSource().GetPodName(),
		f.GetDestination().GetNamespace(), f.GetDestination().GetPodName(), f.GetVerdict(), f.GetTrafficDirection(),
		f.GetEventType().GetType(), f.GetEventType().GetSubType(), f.GetPolicyMatchType(),
		names(f.GetEgressAllowedBy()), names(f.GetEgressDeniedBy()), names(f.GetIngressAllowedBy()), names(f.GetIngressDeniedBy())))
}

func TestViews(t *testing.T) {
	allowed := observetest.TCP(0, 1, 2, 80)
	allowed.Egress, allowed.Ingress = 1, 2
	audit := allowed
	audit.Audit, audit.AuditIngress, audit.Ingress = true, true, 3
	vague := audit
	vague.AuditIngress = false
	outside := observetest.TCP(0, endpoint.None, 2, 80)
	outside.Ingress = 4
	ended := allowed
	ended.Kind = event.Ended
	toWorld := ended
	toWorld.Dst = endpoint.None
	cut := observetest.Deny(allowed, 1, 3)
	cut.Kind = event.Changed
	changed := allowed
	changed.Kind, changed.Reply, changed.Side = event.Changed, true, changed.Side.Other()
	changed.Src, changed.Dst = changed.Dst, changed.Src
	spoofed := observetest.Deny(allowed, 0, 0)
	spoofed.Reason = stat.SpoofedAddress
	for _, c := range []struct {
		name string
		rec  event.Record
		want []string
	}{
		{"allowed", allowed, []string{
			"a/client>b/web FORWARDED EGRESS 5:0 2 [out] [] [in] []", "a/client>b/web FORWARDED INGRESS 5:0 2 [out] [] [in] []"}},
		{"no policy", observetest.TCP(0, 1, 0, 80), []string{"a/client>/ FORWARDED EGRESS 5:0 4 [] [] [] []"}},
		{"from outside", outside, []string{"/>b/web FORWARDED INGRESS 5:0 4 [] [] [] []"}},
		{"isolated", observetest.Deny(allowed, 1, 3), []string{
			"a/client>b/web DROPPED INGRESS 5:0 0 [out] [] [] [deny in]", "a/client>b/web DROPPED INGRESS 1:133 0 [out] [] [] [deny in]"}},
		{"denied by a rule", observetest.Deny(allowed, 1, 0), []string{
			"a/client>b/web DROPPED EGRESS 5:0 2 [] [out] [] []", "a/client>b/web DROPPED EGRESS 1:181 0 [] [out] [] []"}},
		{"spoofed", spoofed, []string{"a/client>b/web DROPPED EGRESS 1:132 0 [] [] [] []"}},
		{"audit", audit, []string{
			"a/client>b/web FORWARDED EGRESS 5:0 2 [out] [] [] [deny in]", "a/client>b/web AUDIT INGRESS 5:0 0 [out] [] [] [deny in]"}},
		{"audit of a side not told", vague, []string{
			"a/client>b/web FORWARDED EGRESS 5:0 2 [out] [] [] [deny in]", "a/client>b/web AUDIT INGRESS 5:0 0 [out] [] [] [deny in]"}},
		{"ended", ended, []string{"a/client>b/web FORWARDED INGRESS 4:0 0 [out] [] [in] []"}},
		{"ended outside", toWorld, []string{"a/client>/ FORWARDED EGRESS 4:3 0 [out] [] [in] []"}},
		{"cut", cut, []string{"a/client>b/web DROPPED INGRESS 5:0 0 [out] [] [] [deny in]"}},
		{"changed by a reply", changed, []string{
			"a/client>b/web FORWARDED EGRESS 5:0 2 [out] [] [in] []", "a/client>b/web FORWARDED INGRESS 5:0 2 [out] [] [in] []"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, 64, 64, 4)
			n.Put(c.rec)
			n.seen(t, 1)
			var got []string
			for _, f := range n.flows(t, &observerpb.GetFlowsRequest{}) {
				got = append(got, brief(f))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// ports lists which flows came, by destination port.
func ports(flows []*flowpb.Flow) (p []int) {
	for _, f := range flows {
		p = append(p, int(f.GetL4().GetTCP().GetDestinationPort()))
	}
	return p
}

func TestSelect(t *testing.T) {
	n := start(t, 64, 8, 4)
	at := func(i int) *timestamppb.Timestamp {
		return timestamppb.New(time.Unix(0, observetest.TCP(i, 1, 0, 0).TimeNs))
	}
	for i := range 10 {
		r := observetest.TCP(i, 1, endpoint.None, uint16(i))
		if i%3 == 0 {
			r = observetest.Deny(r, 1, 0)
		}
		n.Put(r)
		n.seen(t, uint64(i+1))
	}
	year := func(y int) *timestamppb.Timestamp { return timestamppb.New(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)) }
	// Held: 2 to 9; 3, 6 and 9 are denied, and show twice.
	drops := []*flowpb.FlowFilter{{Verdict: []flowpb.Verdict{flowpb.Verdict_DROPPED}}}
	forwarded := []*flowpb.FlowFilter{{Verdict: []flowpb.Verdict{flowpb.Verdict_FORWARDED}}}
	for _, c := range []struct {
		name string
		req  *observerpb.GetFlowsRequest
		want []int
	}{
		{"all", &observerpb.GetFlowsRequest{}, []int{2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9}},
		{"more than there are", &observerpb.GetFlowsRequest{Number: ^uint64(0)}, []int{2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9}},
		{"last", &observerpb.GetFlowsRequest{Number: 4}, []int{7, 8, 9, 9}},
		{"last, half of an event", &observerpb.GetFlowsRequest{Number: 5, Blacklist: forwarded}, []int{3, 6, 6, 9, 9}},
		{"last of a kind", &observerpb.GetFlowsRequest{Number: 3, Whitelist: forwarded}, []int{5, 7, 8}},
		{"first", &observerpb.GetFlowsRequest{Number: 2, First: true}, []int{2, 3}},
		{"first of a kind", &observerpb.GetFlowsRequest{Number: 3, First: true, Whitelist: drops}, []int{3, 3, 6}},
		{"since", &observerpb.GetFlowsRequest{Since: at(8)}, []int{8, 9, 9}},
		{"since, the first ones", &observerpb.GetFlowsRequest{Since: at(7), Number: 2}, []int{7, 8}},
		{"until", &observerpb.GetFlowsRequest{Until: at(3)}, []int{2, 3, 3}},
		{"between", &observerpb.GetFlowsRequest{Since: at(4), Until: at(5)}, []int{4, 5}},
		{"to come", &observerpb.GetFlowsRequest{Since: at(20)}, nil},
		// Beyond what nanoseconds of an int64 reach.
		{"since long ago", &observerpb.GetFlowsRequest{Since: year(1600)}, []int{2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9}},
		{"since ever", &observerpb.GetFlowsRequest{Since: year(1), Number: 2}, []int{2, 3}},
		{"until doomsday", &observerpb.GetFlowsRequest{Until: year(9999), Number: 2}, []int{9, 9}},
		{"until long ago", &observerpb.GetFlowsRequest{Until: year(1600)}, nil},
		{"since doomsday", &observerpb.GetFlowsRequest{Since: year(9999)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ports(n.flows(t, c.req)); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	n := start(t, 64, 8, 1)
	huge := &observerpb.GetFlowsRequest{Whitelist: []*flowpb.FlowFilter{{Uuid: []string{strings.Repeat("x", 2<<20)}}}}
	for _, c := range []struct {
		name string
		req  *observerpb.GetFlowsRequest
		want codes.Code
	}{
		{"first and follow", &observerpb.GetFlowsRequest{First: true, Follow: true}, codes.InvalidArgument},
		{"time", &observerpb.GetFlowsRequest{Since: &timestamppb.Timestamp{Nanos: -1}}, codes.InvalidArgument},
		{"CIDR", &observerpb.GetFlowsRequest{Whitelist: []*flowpb.FlowFilter{{SourceIp: []string{"1.2.3.4/40"}}}}, codes.InvalidArgument},
		{"filter", &observerpb.GetFlowsRequest{Blacklist: []*flowpb.FlowFilter{{HttpMethod: []string{"GET"}}}}, codes.InvalidArgument},
		{"mask", &observerpb.GetFlowsRequest{FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"nothing"}}}, codes.InvalidArgument},
		{"size", huge, codes.ResourceExhausted},
	} {
		stream, err := n.client.GetFlows(t.Context(), c.req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n.Put(observetest.TCP(0, 1, 0, 1))
	n.seen(t, 1)
	first, err := n.client.GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true, Number: 1})
	if err == nil {
		_, err = first.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	second, err := n.client.GetFlows(t.Context(), &observerpb.GetFlowsRequest{})
	if err == nil {
		_, err = second.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream too many: %v", err)
	}
}

func TestMask(t *testing.T) {
	n := start(t, 64, 8, 4)
	n.Put(observetest.Deny(observetest.TCP(0, 1, 2, 80), 1, 3))
	n.seen(t, 1)
	got := n.flows(t, &observerpb.GetFlowsRequest{Number: 1, FieldMask: &fieldmaskpb.FieldMask{
		Paths: []string{"verdict", "source.pod_name", "destination", "destination.labels", "is_reply"}}})
	if len(got) != 1 {
		t.Fatalf("%d flows", len(got))
	}
	f := got[0]
	if f.GetVerdict() != flowpb.Verdict_DROPPED || f.GetSource().GetPodName() != "client" || f.GetDestination().GetNamespace() != "b" || f.GetIsReply() == nil {
		t.Errorf("missing in %v", f)
	}
	if f.GetSource().GetNamespace() != "" || f.GetIP() != nil || f.GetTime() != nil || f.GetIngressDeniedBy() != nil {
		t.Errorf("too much in %v", f)
	}
}

// Flows carry their node's labels, by which they are found; those of a stream that
// goes on follow the node.
func TestNodeLabels(t *testing.T) {
	n := start(t, 64, 8, 4)
	n.SetNodeLabels("kubernetes.io/hostname=node-1", "zone=a")
	n.Put(observetest.TCP(0, 1, endpoint.None, 80))
	n.seen(t, 1)
	for selector, want := range map[string]int{
		"": 1, "zone=a": 1, "zone in (a, b),kubernetes.io/hostname": 1, "zone=b": 0, "!zone": 0, "k8s:zone=a": 1, "other:zone=a": 0,
	} {
		req := &observerpb.GetFlowsRequest{}
		if selector != "" {
			req.Whitelist = []*flowpb.FlowFilter{{NodeLabels: []string{selector}}}
		}
		got := n.flows(t, req)
		if len(got) != want {
			t.Errorf("%q: %d flows, want %d", selector, len(got), want)
		}
		for _, f := range got {
			if !slices.Equal(f.GetNodeLabels(), []string{"kubernetes.io/hostname=node-1", "zone=a"}) {
				t.Errorf("labels %v", f.GetNodeLabels())
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := n.client.GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true, Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	n.SetNodeLabels("zone=b")
	for i := 1; ; i++ {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("flows carry no new labels: %v", err)
		}
		if slices.Equal(resp.GetFlow().GetNodeLabels(), []string{"zone=b"}) {
			break
		}
		n.Put(observetest.TCP(i, 1, endpoint.None, 80))
	}
}

func TestStatus(t *testing.T) {
	n := start(t, 64, 8, 4)
	for i := range 10 {
		n.Put(observetest.TCP(i, 1, 2, 80))
	}
	n.seen(t, 10)
	for end := time.Now().Add(10 * time.Second); n.observer.Stats().Read < 10 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // what is in the history is counted after that
	}
	st, err := n.client.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{})
	if err != nil || st.GetNumFlows() != 8 || st.GetMaxFlows() != 8 || st.GetSeenFlows() != 20 || st.GetUptimeNs() == 0 {
		t.Errorf("status %v, %v", st, err)
	}
	nodes, err := n.client.GetNodes(t.Context(), &observerpb.GetNodesRequest{})
	if err != nil || len(nodes.GetNodes()) != 1 || nodes.GetNodes()[0].GetName() != "node-1" {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	for _, service := range []string{"", "hubble.server.Observer", "observer.Observer", "peer.Peer"} {
		h, err := healthpb.NewHealthClient(n.conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
		if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, h, err)
		}
	}
	peers, err := peerpb.NewPeerClient(n.conn).Notify(t.Context(), &peerpb.NotifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for range 2 {
		p, err := peers.Recv()
		if err != nil || p.GetType() != peerpb.ChangeNotificationType_PEER_ADDED {
			t.Fatalf("peer %v, %v", p, err)
		}
		names[p.GetName()] = true
	}
	if !names["node-1"] || !names["other"] {
		t.Errorf("peers %v", names)
	}
	agent, err := n.client.GetAgentEvents(t.Context(), &observerpb.GetAgentEventsRequest{Number: 5})
	if err == nil {
		_, err = agent.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("agent events: %v", err)
	}
}

// A second server finds the address taken, and takes nothing away by that.
func TestTaken(t *testing.T) {
	n := start(t, 64, 8, 4)
	if _, err := n.client.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	cfg := hubble.Config{Node: "x", Socket: n.socket, Streams: 1}
	if err := hubble.New(cfg, n.observer, n.Source).Serve(t.Context()); err == nil {
		t.Error("two servers at one address")
	}
	c, err := net.Dial("unix", n.socket)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		cfg hubble.Config
		ok  bool
	}{
		{hubble.Config{Streams: 1, Listen: "127.0.0.1:4244"}, true},
		{hubble.Config{Streams: 1, Listen: "[::1]:4244"}, true},
		{hubble.Config{Streams: 1, Listen: "localhost:4244"}, true},
		{hubble.Config{Streams: 1, Listen: ":4244"}, false},
		{hubble.Config{Streams: 1, Listen: "0.0.0.0:4244"}, false},
		{hubble.Config{Streams: 1, Listen: "0.0.0.0:4244", TLS: hubble.TLS{Cert: "c", Key: "k"}}, true},
		{hubble.Config{Streams: 1, Listen: "0.0.0.0:4244", TLS: hubble.TLS{Cert: "c"}}, false},
		{hubble.Config{Streams: 1, Listen: "nonsense"}, false},
		{hubble.Config{Streams: 1, Socket: "relative"}, false},
		{hubble.Config{Streams: 0}, false},
		{hubble.Config{Streams: 1, TLS: hubble.TLS{ClientCA: "ca"}}, false},
	} {
		if err := c.cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
