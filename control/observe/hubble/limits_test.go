package hubble_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
)

// most is what a client that doesn't read may take, bytes: a window's worth of
// messages at its own end, which is in this process too, and as much at the
// server's.
const most = 512 << 10

// A thousand clients follow at once, most of which never read. Those that do
// get, or are told that they lost, every event; who comes when there are as many
// as may is refused; what they all take is bounded, and given back.
func TestThousandClients(t *testing.T) {
	const reading, total = 10, 2000
	clients := 1000
	if testing.Short() {
		clients = 100
	}
	n := start(t, 1<<13, 1<<12, clients)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	before := heap()
	var opened, done, read sync.WaitGroup
	refused := 0
	n.Put(observetest.TCP(0, 1, endpoint.None, 80))
	n.seen(t, 1)
	release := make(chan struct{})
	tallies := make([]tally, reading)
	read.Add(reading)
	for first := 0; first < clients; first += 100 { // as many a connection
		client := observerpb.NewObserverClient(n.dial(t, grpc.WithInitialWindowSize(1<<16)))
		for i := first; i < first+100; i++ {
			opened.Add(1)
			done.Go(func() {
				stream, err := client.GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true, Number: 1})
				if err == nil {
					_, err = stream.Recv() // the one that is there: the request is served
				}
				opened.Done()
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					if i < reading {
						read.Done()
					}
					return
				}
				if i < reading {
					tallies[i] = follow(stream, total, func() {})
					read.Done()
					return
				}
				<-release
			})
		}
	}
	opened.Wait()
	for range 10 {
		stream, err := n.client.GetFlows(ctx, &observerpb.GetFlowsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) == codes.ResourceExhausted {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d of 10 clients too many are refused", refused)
	}
	recs := make([]event.Record, 100)
	for i := 0; i < total; i += len(recs) {
		for k := range recs {
			recs[k] = observetest.TCP(i+k, 1, endpoint.None, 80)
		}
		n.Put(recs...)
	}
	all := make(chan struct{})
	go func() { read.Wait(); close(all) }()
	for waiting := true; waiting; {
		select {
		case <-all:
			waiting = false
		case <-ctx.Done():
			t.Fatal("clients that read don't get all")
		case <-time.After(50 * time.Millisecond):
			// A loss is told with the next event that gets through.
			n.Put(observetest.TCP(0, 1, endpoint.None, 80))
		}
	}
	during := heap()
	if during > before+uint64(clients)*most {
		t.Errorf("%d MB taken", (during-before)>>20)
	}
	t.Logf("%d clients take %d KB each", clients, (max(during, before)-before)/uint64(clients)>>10)
	close(release)
	done.Wait()
	for i, got := range tallies {
		if got.err != nil || got.flows+got.lostRing+got.lostHistory < total {
			t.Errorf("client %d: %+v", i, got)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// Requests that never end are streams as well: there are as many as may be, for so
// long as a request may take, and who comes later is refused before it is read.
func TestUnfinished(t *testing.T) {
	const streams, more = 4, 8
	n := start(t, 64, 64, streams)
	tr := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.socket)
	}}
	defer tr.CloseIdleConnections()
	n.flows(t, &observerpb.GetFlowsRequest{}) // it is served
	answers := make(chan string, streams+more)
	for i := range streams + more {
		body, w := io.Pipe()
		defer w.Close()
		method := [...]string{observerpb.Observer_GetFlows_FullMethodName, observerpb.Observer_ServerStatus_FullMethodName}[i%2]
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://node"+method, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		go func() { _, _ = w.Write([]byte{0, 0, 0, 0x10, 0}) }() // a message of 4 KB, of which no more comes
		go func() {
			resp, err := tr.RoundTrip(req)
			if err != nil {
				answers <- err.Error()
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			answers <- cmp.Or(resp.Header.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Status"))
		}()
	}
	refused := strconv.Itoa(int(codes.ResourceExhausted))
	for i := range more {
		select {
		case got := <-answers:
			if got != refused {
				t.Errorf("answer %q, want %s", got, refused)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d of %d requests too many are refused", i, more)
		}
	}
	if testing.Short() {
		return
	}
	for i := range streams {
		select {
		case got := <-answers:
			if got == refused {
				t.Error("refused that was admitted")
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("%d of %d requests that don't go on are ended", i, streams)
		}
	}
	n.flows(t, &observerpb.GetFlowsRequest{})
}
