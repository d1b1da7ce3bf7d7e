package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// Client talks to an agent through its Unix socket.
type Client struct {
	http *http.Client
	path string
}

// NewClient returns a client for the socket at path; it connects on use.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status asks for the agent's state.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status", &s)
}

// FullStatus asks for the agent's state with that of its maps and programs.
func (c *Client) FullStatus(ctx context.Context) (Status, error) {
	var s Status
	return s, c.get(ctx, "/v1/status?maps=true", &s)
}

// Endpoints asks for the pods of the node.
func (c *Client) Endpoints(ctx context.Context) ([]Endpoint, error) {
	var e []Endpoint
	return e, c.get(ctx, "/v1/endpoints", &e)
}

// Flows calls visit with up to last past events, oldest first, and then, if
// follow is set, with each new one until ctx ends, the agent goes away or
// visit returns an error, which is returned. onOpen, if not nil, is called
// once the agent has subscribed the client: no later event is missed.
func (c *Client) Flows(ctx context.Context, last int, follow bool, onOpen func(), visit func(*Flow) error) error {
	body, err := c.FlowLines(ctx, last, follow)
	if err != nil {
		return err
	}
	defer body.Close()
	if onOpen != nil {
		onOpen()
	}
	dec := json.NewDecoder(body)
	for {
		var f Flow
		if err := dec.Decode(&f); err != nil {
			if errors.Is(err, io.EOF) || ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("read flows from %s: %w", c.path, err)
		}
		if err := visit(&f); err != nil {
			return err
		}
	}
}

// FlowLines is Flows for who decodes the lines of JSON, or doesn't.
func (c *Client) FlowLines(ctx context.Context, last int, follow bool) (io.ReadCloser, error) {
	q := url.Values{"last": {strconv.Itoa(last)}, "follow": {strconv.FormatBool(follow)}}
	return c.open(ctx, "/v1/flows?"+q.Encode())
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	body, err := c.open(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("decode %s from %s: %w", path, c.path, err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sluice"+path, nil)
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

// notYet is what an agent says that has been waited for in vain. What for need not
// be that a policy comes into force: it may be that one goes.
type notYet string

func (e notYet) Error() string { return string(e) }
func (e notYet) Unwrap() error { return ErrNotInForce }

func (c *Client) do(req *http.Request) (io.ReadCloser, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask agent at %s: %w", c.path, err)
	}
	if resp.StatusCode != http.StatusOK {
		msg, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		resp.Body.Close()
		said := bytes.TrimSpace(msg)
		switch resp.StatusCode {
		case http.StatusGatewayTimeout:
			return nil, notYet(fmt.Sprintf("agent at %s: not in time: %s", c.path, said))
		case http.StatusNotFound:
			return nil, fmt.Errorf("agent at %s does not know %s: it may be of another version", c.path, req.URL.Path)
		}
		return nil, fmt.Errorf("agent at %s: %s: %s", c.path, resp.Status, said)
	}
	return resp.Body, nil
}
