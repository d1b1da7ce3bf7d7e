package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sluice-net/sluice/control/server"
)

// Agent answers the API's questions.
type Agent interface {
	// Status describes the agent; with maps also what is in the kernel's maps,
	// which takes some ten milliseconds if they are full.
	Status(maps bool) (Status, error)
	Endpoints() []Endpoint
	// Policies returns policies in the order of judgement.
	Policies(Which) []Policy
	// Wait returns once what it is asked for is in force; when ctx ends, with an
	// error that says what is missing.
	Wait(context.Context, WaitFor) (Waited, error)
	// Flows calls visit with up to last past events, oldest first, and then, if
	// follow is set, with each new one until ctx ends or visit fails. opened is
	// called once no later event can be missed. visit(nil) says that there is
	// nothing more for now: what was written should be flushed.
	Flows(ctx context.Context, last int, follow bool, opened func(), visit func(*Flow) error) error
}

// Telemetry is an Agent that serves metrics and its health beside its API.
type Telemetry interface {
	// Telemetry serves /metrics, /healthz and /readyz.
	Telemetry() http.Handler
}

// Serve answers on a Unix socket at path, mode 0600, until ctx ends. A socket
// that an earlier agent left is replaced; one that answers is an error.
func Serve(ctx context.Context, path string, agent Agent) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	err = server.Run(ctx, l, &http.Server{Handler: routes(agent), ReadHeaderTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("serve API at %s: %w", path, err)
	}
	return nil
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("create folder of API socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen at %s: another agent answers there", path)
	}
	// Bound under a name of its own and moved into place, so that it is never
	// there with a wider mode.
	tmp := path + ".new"
	for _, p := range []string{tmp, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove stale API socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen at %s: %w", path, err), l.Close())
	}
	return l, nil
}

func routes(agent Agent) http.Handler {
	mux := http.NewServeMux()
	if s, ok := agent.(Sandboxes); ok {
		cniRoutes(mux, s)
	}
	if n, ok := agent.(Names); ok {
		nameRoutes(mux, n)
	}
	if t, ok := agent.(Telemetry); ok {
		for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
			mux.Handle("GET "+path, t.Telemetry())
		}
	}
	if p, ok := agent.(Packets); ok {
		packetRoutes(mux, p)
	}
	if x, ok := agent.(Explainer); ok {
		explainRoutes(mux, x)
	}
	policyRoutes(mux, agent)
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		maps, err := flag(r.FormValue("maps"))
		if err != nil {
			http.Error(w, "maps: "+err.Error(), http.StatusBadRequest)
			return
		}
		s, err := agent.Status(maps)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, s)
	})
	mux.HandleFunc("GET /v1/endpoints", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, agent.Endpoints())
	})
	mux.HandleFunc("GET /v1/flows", func(w http.ResponseWriter, r *http.Request) {
		last, err := number(r.FormValue("last"))
		if err != nil {
			http.Error(w, "last: "+err.Error(), http.StatusBadRequest)
			return
		}
		follow, err := flag(r.FormValue("follow"))
		if err != nil {
			http.Error(w, "follow: "+err.Error(), http.StatusBadRequest)
			return
		}
		streamFlows(w, r, agent, last, follow)
	})
	return mux
}

// patience is how long a client of a stream may not read before it is cut off.
const patience = 10 * time.Second

// flushAt is how many bytes are written at once while there is more to come.
const flushAt = 32 << 10

// streamFlows writes a line an event. A client that doesn't read is cut off
// when its turn to be written to takes too long.
func streamFlows(w http.ResponseWriter, r *http.Request, agent Agent, last int, follow bool) {
	ctl := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/jsonl")
	opened := func() {
		w.WriteHeader(http.StatusOK)
		_ = ctl.Flush()
	}
	lines := make([]byte, 0, flushAt+4<<10)
	write := func() error {
		if err := ctl.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		_, err := w.Write(lines)
		lines = lines[:0]
		return err
	}
	// An error here means that the client is gone: there is no one to tell.
	err := agent.Flows(r.Context(), last, follow, opened, func(f *Flow) error {
		if f == nil {
			if err := write(); err != nil {
				return err
			}
			return ctl.Flush()
		}
		lines = append(f.AppendJSON(lines), '\n')
		if len(lines) < flushAt {
			return nil
		}
		return write()
	})
	if err == nil {
		_ = write()
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the client is gone
}

func number(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = fmt.Errorf("%d: want 0 or more", n)
	}
	return n, err
}

func flag(s string) (bool, error) {
	if s == "" {
		return false, nil
	}
	return strconv.ParseBool(s)
}
