package hubble_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sluice-net/sluice/bench/listen"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
)

// follow1 opens a stream and reads its first flow.
func (n *node) follow1(ctx context.Context, t *testing.T) observerpb.Observer_GetFlowsClient {
	t.Helper()
	stream, err := n.client.GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true, Number: 1})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// all reads a stream to its end.
func all(stream observerpb.Observer_GetFlowsClient, err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// What ends a stream is told as gRPC tells it, and makes room for another one.
func TestStreamEnds(t *testing.T) {
	n := start(t, 64, 8, 1)
	n.Put(observetest.TCP(0, 1, endpoint.None, 80))
	n.seen(t, 1)
	for want, limit := range map[codes.Code]time.Duration{codes.DeadlineExceeded: 2 * time.Second, codes.Canceled: time.Hour} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		stream, err := n.client.GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true, Number: 1})
		if err == nil {
			_, err = stream.Recv() // the time may have ended before that
		}
		if want == codes.Canceled {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
		if err == nil {
			err = all(stream, nil)
		}
		if status.Code(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
		cancel()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			err := all(n.client.GetFlows(t.Context(), &observerpb.GetFlowsRequest{}))
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%v leaves no room: %v", want, err)
			}
		}
	}
}

// A client that follows an agent which goes away is told so.
func TestServerGoesAway(t *testing.T) {
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	o := observe.New(src, src, 64, event.WantAll)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := &node{Source: src, observer: o, socket: t.TempDir() + "/h.sock"}
	served := make(chan error, 1)
	go o.Run(ctx)
	go func() {
		served <- hubble.New(hubble.Config{Node: "n", Socket: n.socket, Streams: 2}, o, src).Serve(ctx)
	}()
	n.client = observerpb.NewObserverClient(n.dial(t))
	src.Put(observetest.TCP(0, 1, endpoint.None, 80))
	n.seen(t, 1)
	stream := n.follow1(t.Context(), t)
	began := time.Now()
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ends with %v", err)
	}
	if err := <-served; err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("ended after %v: %v", time.Since(began), err)
	}
}

// Requests that are none for flows in protobuf are answered as gRPC has it.
func TestUnusualRequests(t *testing.T) {
	n := start(t, 64, 8, 1)
	ask := func(req *observerpb.GetFlowsRequest, options ...grpc.CallOption) error {
		stream, err := n.client.GetFlows(t.Context(), req, options...)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	if encoding.GetCompressor(gzip.Name) == nil {
		t.Fatal("no gzip")
	}
	mask := &observerpb.GetFlowsRequest{FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"100% né\n"}}}
	if err := ask(mask); status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), `"100% né\n"`) {
		t.Errorf("a message with unusual characters: %v", err)
	}
	if err := ask(&observerpb.GetFlowsRequest{}, grpc.CallContentSubtype("none"), grpc.ForceCodecV2(encoding.GetCodecV2("proto"))); status.Code(err) == codes.OK {
		t.Error("messages that are not protobuf are taken")
	}
	if err := ask(&observerpb.GetFlowsRequest{}, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.Unimplemented {
		t.Errorf("a compressed request: %v", err)
	}
	transport := &http.Transport{Protocols: &http.Protocols{}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.socket)
	}}
	transport.Protocols.SetUnencryptedHTTP2(true)
	for path, want := range map[string]int{"/": http.StatusMethodNotAllowed, observerpb.Observer_GetFlows_FullMethodName: http.StatusMethodNotAllowed} {
		resp, err := (&http.Client{Transport: transport}).Get("http://sluice" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
}

// A client that takes no more than it must is told the same as one that decodes all.
func TestClientsAgree(t *testing.T) {
	n := start(t, 1<<12, 1<<12, 4)
	_ = n.flows(t, &observerpb.GetFlowsRequest{}) // it serves
	var clients []*listen.Client
	for _, follow := range []func(context.Context, string) (*listen.Client, error){listen.Wire, listen.Decoded} {
		c, err := follow(t.Context(), n.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	const events = 5000
	for i := range events {
		n.Put(observetest.TCP(i, 1, 2, 80)) // shows twice
		if i%64 == 0 {
			n.seen(t, uint64(i+1))
		}
	}
	for _, c := range clients {
		var got listen.Tally
		for end := time.Now().Add(20 * time.Second); got.Flows < 2*events; time.Sleep(time.Millisecond) {
			var err error
			if got, err = c.Tally(); err != nil || time.Now().After(end) {
				t.Fatalf("%+v: %v", got, err)
			}
		}
		if got != (listen.Tally{Flows: 2 * events, Next: 2 * events}) {
			t.Errorf("%+v", got)
		}
	}
}
