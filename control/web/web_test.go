package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/control/web"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
)

// page is a server of a page with a source of events behind it.
type page struct {
	*testing.T
	src *observetest.Source
	o   *observe.Observer
	srv *httptest.Server
}

func newPage(t *testing.T, cfg web.Config) *page {
	src, err := observetest.New(1 << 12)
	if err != nil {
		t.Fatal(err)
	}
	p := &page{T: t, src: src, o: observe.New(src, src, 1<<12, 0)}
	s := web.New(cfg, p.o, func() web.State { return web.State{Node: "n1", Generation: 7, Pods: 3} })
	p.srv = httptest.NewServer(s.Handler())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.o.Run(ctx); close(done) }()
	t.Cleanup(func() { p.srv.CloseClientConnections(); p.srv.Close(); cancel(); <-done })
	return p
}

// get asks for a path, as change makes the request.
func (p *page) get(method, path string, change func(*http.Request)) *http.Response {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), method, p.srv.URL+path, nil)
	if err != nil {
		p.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { resp.Body.Close() })
	return resp
}

type message struct {
	Node         string
	Generation   uint64
	Lost, Missed uint64
	Seen, Hidden uint64
	Flows        []struct {
		Number   uint64
		Verdict  string
		Event    string
		From, To struct{ Kind, Namespace, Name string }
	}
	Edges []struct {
		From, To       struct{ Kind, Namespace, Name string }
		Proto, Verdict string
		Port           int
		Flows, Packets uint64
		DecidedBy      []struct{ Name string }
	}
}

// follow opens a stream; its messages come out of the function returned.
func (p *page) follow(query string) func() message {
	p.Helper()
	resp := p.get(http.MethodGet, "/stream?"+query, nil)
	if resp.StatusCode != http.StatusOK {
		p.Fatalf("stream?%s: %s", query, resp.Status)
	}
	in := bufio.NewReaderSize(resp.Body, 1<<20)
	return func() message {
		p.Helper()
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				p.Fatal(err)
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				var m message
				if err := json.Unmarshal([]byte(data), &m); err != nil {
					p.Fatal(err)
				}
				return m
			}
		}
	}
}

// until reads messages until their sums hold n flows.
func until(next func() message, n uint64) (all message) {
	for first := true; first || all.Seen < n; first = false {
		m := next()
		all.Seen, all.Hidden = all.Seen+m.Seen, all.Hidden+m.Hidden
		all.Node, all.Lost, all.Missed = m.Node, m.Lost, m.Missed
		all.Edges = append(all.Edges, m.Edges...)
		all.Flows = append(all.Flows, m.Flows...)
	}
	return all
}

func TestGuard(t *testing.T) {
	p := newPage(t, web.Config{Streams: 1, Listen: "10.0.0.1:80", Hosts: []string{"sluice.internal"}})
	for _, c := range []struct {
		name         string
		method, path string
		change       func(*http.Request)
		want         int
	}{
		{"page", "GET", "/", nil, 200},
		{"script", "GET", "/app.js", nil, 200},
		{"head", "HEAD", "/", nil, 200},
		{"nothing", "GET", "/etc/passwd", nil, 404},
		{"outside of the folder", "GET", "/..%2fconfig.go", nil, 404},
		{"POST", "POST", "/", nil, 405},
		{"DELETE", "DELETE", "/stream", nil, 405},
		{"localhost", "GET", "/", func(r *http.Request) { r.Host = "localhost:8080" }, 200},
		{"IPv6 loopback", "GET", "/", func(r *http.Request) { r.Host = "[::1]:8080" }, 200},
		{"configured name", "GET", "/", func(r *http.Request) { r.Host = "Sluice.Internal:80" }, 200},
		{"other name", "GET", "/", func(r *http.Request) { r.Host = "evil.example" }, 421},
		{"name that begins alike", "GET", "/", func(r *http.Request) { r.Host = "localhost.evil.example" }, 421},
		{"address that is not the agent's", "GET", "/", func(r *http.Request) { r.Host = "10.0.0.1" }, 421},
		{"other site's script", "GET", "/stream", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403},
		{"same site, other origin", "GET", "/stream", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }, 403},
		{"link of another site", "GET", "/", func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Sec-Fetch-Mode", "navigate")
		}, 200},
	} {
		resp := p.get(c.method, c.path, c.change)
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.name, resp.Status, c.want)
		}
		if got := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", c.name, got)
		}
	}
}

// The assets name no other host and hold nothing that the policy forbids.
func TestAssets(t *testing.T) {
	remote := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+\.[a-z]{2,}|@import|\beval\(|innerHTML|insertAdjacentHTML|document\.write|\son[a-z]+="|style="`)
	files, err := filepath.Glob("assets/*")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range remote.FindAllString(strings.ReplaceAll(string(b), "http://www.w3.org/", ""), -1) {
			t.Errorf("%s has %q", f, found)
		}
	}
}

func TestStream(t *testing.T) {
	p := newPage(t, web.Default())
	next := p.follow("")
	if m := next(); m.Node != "n1" || m.Generation != 7 || len(m.Flows) > 0 {
		t.Errorf("first message %+v", m)
	}
	deny := observetest.Deny(observetest.TCP(5, 1, 3, 5432), 0, 3)
	deny.Suppressed = 4
	end := observetest.TCP(0, 1, 2, 80)
	end.Kind, end.Packets, end.Bytes = event.Ended, [2]uint64{3, 4}, [2]uint64{100, 200}
	p.src.Put(observetest.TCP(0, 1, 2, 80), observetest.TCP(1, 1, 2, 80), deny, observetest.TCP(2, 0, 2, 443), end)
	m := until(next, 5)
	flows, packets := map[string]uint64{}, map[string]uint64{}
	for _, e := range m.Edges {
		key := fmt.Sprintf("%s/%s>%s/%s %s:%d %s", e.From.Namespace, e.From.Name, e.To.Namespace, e.To.Name, e.Proto, e.Port, e.Verdict)
		flows[key] += e.Flows
		packets[key] += e.Packets
	}
	for key, want := range map[string][2]uint64{
		"a/client>b/web TCP:80 allow":  {2, 7},
		"a/client>b/db TCP:5432 deny":  {1, 5},
		"/outside>b/web TCP:443 allow": {1, 0},
	} {
		if flows[key] != want[0] || packets[key] != want[1] {
			t.Errorf("%s: %d flows, %d packets, want %v; there are %v", key, flows[key], packets[key], want, flows)
		}
	}
	for _, f := range m.Flows {
		if f.Event == "ended" {
			t.Error("ends of flows are listed unasked")
		}
	}
	if p.src.Interest() != event.WantAll {
		t.Errorf("interest is %b", p.src.Interest())
	}
}

func TestFilters(t *testing.T) {
	p := newPage(t, web.Default())
	p.src.Put() // wakes nobody
	defer p.o.Want(event.WantAll)()
	ping := observetest.TCP(9, 1, 2, 443)
	ping.Key, ping.Side = packet.MakeKey(packet.AddrFrom(observetest.Addr(1)), packet.AddrFrom(observetest.Addr(3)), 443, 443, packet.ProtoICMP)
	p.src.Put(observetest.TCP(0, 1, 2, 80), observetest.Deny(observetest.TCP(5, 1, 3, 5432), 0, 3), observetest.TCP(2, 0, 2, 443), ping)
	for p.o.Stats().Read < 4 && t.Context().Err() == nil {
		time.Sleep(time.Millisecond)
	}
	for query, want := range map[string]uint64{
		"": 4, "verdict=deny": 1, "verdict=allow": 3, "verdict=audit": 0, "namespace=a": 3, "namespace=b": 4, "namespace=c": 0,
		"port=443": 1, "q=WEB": 3, "q=b/deny": 1, "q=10.0.0.0": 1, "q=nothing": 0, "verdict=allow&q=client": 2,
	} {
		if m := p.follow(query)(); m.Seen != want {
			t.Errorf("%s: %d flows, want %d", query, m.Seen, want)
		}
	}
	for _, query := range []string{"verdict=maybe", "port=0", "port=x", "port=70000", "ends=2", "what=1", "q=" + strings.Repeat("x", 300)} {
		if resp := p.get(http.MethodGet, "/stream?"+query, nil); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20s: %s", query, resp.Status)
		}
	}
}

// However much happens, a message stays small, and nothing is left uncounted.
func TestBounded(t *testing.T) {
	p := newPage(t, web.Default())
	next := p.follow("")
	next()
	const total = 3000
	go func() {
		for i := range total {
			p.src.Put(observetest.TCP(i, 1, 2, uint16(1+i)))
			if i%500 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	var edges, seen, hidden uint64
	for seen < total {
		m := next()
		if len(m.Flows) > 60 || len(m.Edges) > 1500 {
			t.Fatalf("a message of %d flows, %d edges", len(m.Flows), len(m.Edges))
		}
		for _, e := range m.Edges {
			edges += e.Flows
		}
		seen, hidden = seen+m.Seen, hidden+m.Hidden
		if m.Lost+m.Missed > 0 {
			t.Logf("of %d, %d were lost and %d missed", total, m.Lost, m.Missed) // counted, and no matter here
			break
		}
	}
	if edges+hidden != seen {
		t.Errorf("%d flows in edges and %d hidden, of %d", edges, hidden, seen)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	p := newPage(t, web.Config{Streams: 2})
	a := p.follow("")
	p.follow("")
	if resp := p.get(http.MethodGet, "/stream", nil); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third stream: %s", resp.Status)
	}
	a()
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "web.sock")
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	s := web.New(web.Config{Listen: "unix://" + path, Streams: 1}, observe.New(src, src, 64, 0), func() web.State { return web.State{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	var resp *http.Response
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if resp, err = client.Get("http://localhost/"); err == nil {
			break
		}
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	for listen, want := range map[string]string{
		"": "", "127.0.0.1:8090": "", "localhost:8090": "", "[::1]:0": "", "unix:///run/sluice/web.sock": "",
		"0.0.0.0:8090": "want a loopback address", ":8090": "want a loopback address", "10.0.0.1:80": "want a loopback address",
		"8090": "want host:port", "unix://web.sock": "want an absolute path",
	} {
		cfg := web.Default()
		cfg.Listen = listen
		err := cfg.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", listen, err, want)
		}
		cfg.AllowRemote = true
		if err := cfg.Validate(); strings.Contains(want, "loopback") && err != nil {
			t.Errorf("%q, allowed: %v", listen, err)
		}
	}
	if err := (web.Config{Streams: 0, Hosts: []string{"a:1"}}).Validate(); err == nil || !strings.Contains(err.Error(), "streams") || !strings.Contains(err.Error(), "hosts") {
		t.Errorf("not every fault is told: %v", err)
	}
}
