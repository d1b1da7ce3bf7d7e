// Package web serves a page that shows the flows of a node as they are judged,
// who talks to whom, and which rule decided.
//
// It only reads, what it serves is embedded, and it refers to no other host. Any
// number of flows costs a browser the same: a stream sends at most a few messages
// a second, each with sums over edges and the newest flows only, and a browser
// that doesn't read is cut off. A stream is one reader of the observer's history
// in the goroutine of its request; no packet and no other reader waits for it.
package web

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/server"
)

//go:embed assets
var assets embed.FS

// State is what the page's head says of the agent.
type State struct {
	Node       string `json:"node"`
	NotReady   string `json:"notReady,omitempty"`
	Generation uint64 `json:"generation"`
	Pods       int    `json:"pods"`
	Rejected   int    `json:"rejected"`
}

// Server serves the page.
type Server struct {
	cfg      Config
	observer *observe.Observer
	state    func() State
	streams  chan struct{} // a token for each that is open
}

// New returns a server of what an observer sees.
func New(cfg Config, o *observe.Observer, state func() State) *Server {
	return &Server{cfg: cfg, observer: o, state: state, streams: make(chan struct{}, cfg.Streams)}
}

// Handler serves the page and its streams.
func (s *Server) Handler() http.Handler {
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is part of the binary
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stream", s.stream)
	mux.Handle("GET /", http.FileServerFS(files))
	return s.guard(mux)
}

// policy lets the page load what the agent serves, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard turns away what no page of this agent would ask.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "this page only reads", http.StatusMethodNotAllowed)
		case !s.known(r.Host):
			http.Error(w, "unknown host name: see hosts in the agent's configuration", http.StatusMisdirectedRequest)
		case foreign(r):
			http.Error(w, "asked by another site", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// known reports whether a Host header names this server.
func (s *Server) known(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	if loopback(name) || slices.ContainsFunc(s.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, name) }) {
		return true
	}
	listen, _, err := net.SplitHostPort(s.cfg.Listen)
	return err == nil && s.cfg.AllowRemote && listen == name
}

// foreign reports whether a browser says that another site asks. Following a
// link to the page is fine.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.URL.Path != "/"
}

// Serve serves at Config.Listen until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	l, err := s.listen(ctx)
	if err != nil {
		return err
	}
	err = server.Run(ctx, l, &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute})
	if err != nil {
		return fmt.Errorf("serve web page at %s: %w", s.cfg.Listen, err)
	}
	return nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	path, ok := strings.CutPrefix(s.cfg.Listen, unixScheme)
	if !ok {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen for browsers: %w", err)
		}
		return l, nil
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), removeStale(path)); err != nil {
		return nil, fmt.Errorf("listen for browsers at %s: %w", path, err)
	}
	// Bound under another name and moved once its mode is narrow.
	tmp := path + ".new"
	if err := removeStale(tmp); err != nil {
		return nil, fmt.Errorf("listen for browsers at %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for browsers: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for browsers at %s: %w", path, err), l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
