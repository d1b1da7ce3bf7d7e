package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Packets is an Agent that copies packets for whoever asks.
type Packets interface {
	// Packets calls visit with packets that were judged until ctx ends or visit
	// fails. opened is called once no later one can be missed. An error before
	// that may be a *RequestError or a *BusyError.
	Packets(ctx context.Context, q PacketQuery, opened func(), visit func(*Packet) error) error
}

// PacketQuery says which packets are wanted. Allow and Deny are lists of
// Hubble's flow filters, as GetFlows takes them.
type PacketQuery struct {
	SnapLen int             `json:"snapLen"` // bytes of each, from the IP header on
	MaxRate int             `json:"maxRate"` // packets a second
	Allow   json.RawMessage `json:"allow,omitempty"`
	Deny    json.RawMessage `json:"deny,omitempty"`
}

// Packet is the beginning of a packet, with its verdict, or, without one, says
// only what has been left out so far.
type Packet struct {
	Flow   *Flow  `json:"flow,omitempty"`
	Length int    `json:"length,omitempty"` // of the whole packet
	Data   []byte `json:"data,omitempty"`
	// Over the capture: found no room on the way; would have been more than
	// MaxRate.
	Lost    uint64 `json:"lost,omitempty"`
	Omitted uint64 `json:"omitted,omitempty"`
}

// RequestError is a request that says something wrong.
type RequestError struct{ Reason string }

func (e *RequestError) Error() string { return e.Reason }

// BusyError is a request for something that another client has.
type BusyError struct{ Reason string }

func (e *BusyError) Error() string { return e.Reason }

// maxQuery is the size of the largest query that is read, bytes.
const maxQuery = 1 << 20

func packetRoutes(mux *http.ServeMux, agent Packets) {
	mux.HandleFunc("POST /v1/packets", func(w http.ResponseWriter, r *http.Request) {
		var q PacketQuery
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuery))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&q); err != nil {
			http.Error(w, "decode query: "+err.Error(), http.StatusBadRequest)
			return
		}
		ctl, enc, started := http.NewResponseController(w), json.NewEncoder(w), false
		err := agent.Packets(r.Context(), q, func() {
			started = true
			w.Header().Set("Content-Type", "application/jsonl")
			w.WriteHeader(http.StatusOK)
			_ = ctl.Flush()
		}, func(p *Packet) error {
			if p == nil {
				return ctl.Flush()
			}
			if err := ctl.SetWriteDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			return enc.Encode(p)
		})
		if !started {
			writeFault(w, err)
		}
	})
}

// writeFault answers with an error. What is nobody's fault but the server's is
// none of its own kinds.
func writeFault(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var request *RequestError
	var busy *BusyError
	switch {
	case err == nil:
		return
	case errors.As(err, &request):
		status = http.StatusBadRequest
	case errors.As(err, &busy):
		status = http.StatusConflict
	}
	http.Error(w, err.Error(), status)
}

// Packets calls visit with what an agent copies until ctx ends, the agent goes
// away or visit returns an error, which is returned. onOpen is called before,
// once the agent has begun.
func (c *Client) Packets(ctx context.Context, q PacketQuery, onOpen func() error, visit func(*Packet) error) error {
	body, err := c.stream(ctx, "/v1/packets", q)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := onOpen(); err != nil {
		return err
	}
	for dec := json.NewDecoder(body); ; {
		var p Packet
		if err := dec.Decode(&p); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read packets from %s: %w", c.path, err)
		}
		if err := visit(&p); err != nil {
			return err
		}
	}
}

func (c *Client) stream(ctx context.Context, path string, query any) (io.ReadCloser, error) {
	text, err := json.Marshal(query)
	if err != nil {
		return nil, fmt.Errorf("encode query: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sluice"+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return c.do(req)
}
