package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
)

// Explainer is an Agent that says how the rules come to a verdict.
type Explainer interface {
	// Explain returns the walk through all policies, by what the agent knows
	// now. The error may be a *RequestError.
	Explain(ctx context.Context, q Question) (*Explanation, error)
}

// Question is about the first packet of a flow. The port of ICMP is
// type<<8|code.
type Question struct {
	Src, Dst netip.Addr
	Proto    string
	Port     uint16
}

// Explanation is the answer to a Question.
type Explanation struct {
	Generation uint64          `json:"generation"` // of the rules in force when it was asked
	Trace      json.RawMessage `json:"trace"`      // as sluice verdict prints it
}

func explainRoutes(mux *http.ServeMux, agent Explainer) {
	mux.HandleFunc("GET /v1/explain", func(w http.ResponseWriter, r *http.Request) {
		q, err := question(r)
		if err != nil {
			writeFault(w, err)
			return
		}
		x, err := agent.Explain(r.Context(), q)
		if err != nil {
			writeFault(w, err)
			return
		}
		writeJSON(w, x)
	})
}

func question(r *http.Request) (q Question, err error) {
	if q.Src, err = netip.ParseAddr(r.FormValue("src")); err != nil {
		return q, &RequestError{"src: want an address"}
	}
	if q.Dst, err = netip.ParseAddr(r.FormValue("dst")); err != nil {
		return q, &RequestError{"dst: want an address"}
	}
	port := uint64(0)
	if text := r.FormValue("port"); text != "" {
		if port, err = strconv.ParseUint(text, 10, 16); err != nil {
			return q, &RequestError{"port: want 0 to 65535"}
		}
	}
	q.Proto, q.Port = r.FormValue("proto"), uint16(port)
	return q, nil
}

// Explain asks how the rules come to a verdict.
func (c *Client) Explain(ctx context.Context, q Question) (*Explanation, error) {
	v := url.Values{"src": {q.Src.String()}, "dst": {q.Dst.String()}, "proto": {q.Proto}, "port": {strconv.Itoa(int(q.Port))}}
	x := &Explanation{}
	return x, c.get(ctx, "/v1/explain?"+v.Encode(), x)
}
