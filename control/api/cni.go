package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// What a container runtime's CNI plugin tells the agent:
//
//	POST /v1/cni/add    Sandbox → Endpoint, once the pod's policy is in force
//	POST /v1/cni/check  Sandbox → Endpoint, as it is now
//	POST /v1/cni/del    Attachment
//	POST /v1/cni/gc     []Attachment, all that are valid

// Attachment names one network of one sandbox, as the CNI specification does.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"` // inside the sandbox
}

// Sandbox is an attachment of a pod, as the CNI plugins before have made it.
type Sandbox struct {
	Attachment
	Namespace string       `json:"namespace"` // of Kubernetes; may be empty: see Pod
	Pod       string       `json:"pod"`       // if empty, the pod that has the addresses is meant
	UID       string       `json:"uid,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	LinkLocal []netip.Addr `json:"linkLocal,omitempty"`
	Link      string       `json:"link"`    // host's side
	Ifindex   int          `json:"ifindex"` // host's side
	MAC       string       `json:"mac"`     // the pod's
	// TimeoutMs is how long add waits for the policy, in milliseconds.
	TimeoutMs int64 `json:"timeoutMs"`
}

// Sandboxes is the part of an agent that CNI plugins talk to.
type Sandboxes interface {
	// AddSandbox closes the sandbox's link at once and returns when policy is
	// in force on it. ErrNotInForce says that this didn't happen in time.
	AddSandbox(context.Context, Sandbox) (Endpoint, error)
	CheckSandbox(context.Context, Sandbox) (Endpoint, error)
	DeleteSandbox(context.Context, Attachment) error
	KeepSandboxes(context.Context, []Attachment) error
}

// Errors that CNI plugins tell apart.
var (
	ErrNotInForce = errors.New("policy is not in force") // 504 Gateway Timeout
	ErrBadSandbox = errors.New("sandbox is not usable")  // 400 Bad Request
)

func cniRoutes(mux *http.ServeMux, agent Sandboxes) {
	mux.HandleFunc("POST /v1/cni/add", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, agent.AddSandbox)
	})
	mux.HandleFunc("POST /v1/cni/check", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, agent.CheckSandbox)
	})
	mux.HandleFunc("POST /v1/cni/del", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(ctx context.Context, a Attachment) (struct{}, error) {
			return struct{}{}, agent.DeleteSandbox(ctx, a)
		})
	})
	mux.HandleFunc("POST /v1/cni/gc", func(w http.ResponseWriter, r *http.Request) {
		serve(w, r, func(ctx context.Context, a []Attachment) (struct{}, error) {
			return struct{}{}, agent.KeepSandboxes(ctx, a)
		})
	})
}

// maxBody bounds a request; a garbage collection of thousands of pods fits.
const maxBody = 4 << 20

func serve[In, Out any](w http.ResponseWriter, r *http.Request, do func(context.Context, In) (Out, error)) {
	var in In
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		http.Error(w, "decode request: "+err.Error(), http.StatusBadRequest)
		return
	}
	out, err := do(r.Context(), in)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // fails only if the plugin is gone
	case errors.Is(err, ErrBadSandbox):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, ErrNotInForce):
		http.Error(w, missing(err), http.StatusGatewayTimeout)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// missing is what an ErrNotInForce says beside that: the client says that again.
func missing(err error) string { return strings.TrimPrefix(err.Error(), ErrNotInForce.Error()+": ") }

// AddSandbox tells the agent of a new sandbox and waits until its policy is in
// force, no longer than s.TimeoutMs.
func (c *Client) AddSandbox(ctx context.Context, s Sandbox) (e Endpoint, err error) {
	return e, c.post(ctx, "/v1/cni/add", s, &e)
}

// CheckSandbox asks how a sandbox is served.
func (c *Client) CheckSandbox(ctx context.Context, s Sandbox) (e Endpoint, err error) {
	return e, c.post(ctx, "/v1/cni/check", s, &e)
}

// DeleteSandbox tells the agent that a sandbox is about to go.
func (c *Client) DeleteSandbox(ctx context.Context, a Attachment) error {
	return c.post(ctx, "/v1/cni/del", a, &struct{}{})
}

// KeepSandboxes tells the agent which sandboxes there are.
func (c *Client) KeepSandboxes(ctx context.Context, valid []Attachment) error {
	return c.post(ctx, "/v1/cni/gc", append([]Attachment{}, valid...), &struct{}{})
}

func (c *Client) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sluice"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("tell agent at %s: %w", c.path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			return fmt.Errorf("decode %s from %s: %w", path, c.path, err)
		}
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	said := string(bytes.TrimSpace(text))
	switch resp.StatusCode {
	case http.StatusGatewayTimeout:
		return fmt.Errorf("agent at %s: %w: %s", c.path, ErrNotInForce, said)
	case http.StatusBadRequest:
		return fmt.Errorf("agent at %s: %w: %s", c.path, ErrBadSandbox, said)
	}
	return fmt.Errorf("agent at %s: %s: %s", c.path, resp.Status, said)
}

// Timeout is TimeoutMs as a duration.
func (s *Sandbox) Timeout() time.Duration { return time.Duration(s.TimeoutMs) * time.Millisecond }
