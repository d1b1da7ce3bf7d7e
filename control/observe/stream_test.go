package observe_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
)

// agent is an agent that serves nothing but flows.
type agent struct {
	api.Agent
	*observe.Observer
}

func (a agent) Flows(ctx context.Context, last int, follow bool, opened func(), visit func(*api.Flow) error) error {
	return a.Observer.Flows(ctx, last, follow, opened, visit)
}

// BenchmarkFollow sends events of one worker through the history and the API's
// Unix socket to a client that counts lines, as fast as the client takes them.
func BenchmarkFollow(b *testing.B) {
	src, err := observetest.New(1 << 13)
	if err != nil {
		b.Fatal(err)
	}
	o := observe.New(src, src, 1<<15, event.WantAll)
	path := filepath.Join(b.TempDir(), "api.sock")
	ctx, cancel := context.WithCancel(b.Context())
	served := make(chan error, 1)
	go func() { served <- api.Serve(ctx, path, agent{Observer: o}) }()
	go o.Run(ctx)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	var resp *http.Response
	for range 1000 {
		if resp, err = client.Get("http://sluice/v1/flows?follow=true"); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		b.Fatal(err)
	}
	lines := make(chan uint64, 1<<10)
	go func() {
		defer close(lines)
		buf := make([]byte, 1<<16)
		for {
			n, err := resp.Body.Read(buf)
			if err != nil {
				return
			}
			lines <- uint64(bytes.Count(buf[:n], []byte{'\n'}))
		}
	}()
	recs := make([]event.Record, 64)
	for i := range recs {
		recs[i] = observetest.TCP(i, 1, 2, 80)
	}
	var sent, got uint64
	b.ReportAllocs()
	b.ResetTimer()
	for sent < uint64(b.N) || got < sent {
		if sent < uint64(b.N) && sent-got < 6000 {
			n := min(64, uint64(b.N)-sent)
			src.Put(recs[:n]...)
			sent += n
			select {
			case n := <-lines:
				got += n
			default:
			}
			continue
		}
		n, ok := <-lines
		if !ok {
			b.Fatal("the stream has ended")
		}
		got += n
	}
	b.ReportMetric(float64(got)/b.Elapsed().Seconds(), "flows/s")
	if s := o.Stats(); s.Lost+s.Missed > 0 {
		b.Error(fmt.Sprintf("%d lost, %d missed", s.Lost, s.Missed))
	}
	resp.Body.Close()
	cancel()
	if err := <-served; err != nil {
		b.Error(err)
	}
}
