// Package listen follows a node's flows as a client of Hubble's API, and keeps
// account of them: each flow has a number, and what is missing between the numbers
// can be compared with what the node says was lost.
//
// There are two clients. One takes what comes for as little as it can be taken for:
// it looks into messages for their number alone. The other decodes messages by
// grpc-go and its generated code, as Hubble's own tools do. Each runs on a goroutine
// of its own.
package listen

import (
	"context"
	"errors"
	"fmt"
	"sync"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Tally is what a client was told so far. Flows are counted as Hubble does: an event
// that both ends of a flow show is two.
type Tally struct {
	Flows   uint64
	Ring    uint64 // events lost on their way from the workers, as the node says
	History uint64 // flows that the node says it had no more when it was their turn
	// First is the number of the first flow, and Next that which follows the last.
	First, Next uint64
	Late        uint64 // flows that came after one of a greater number
}

// Missing is how many numbers are not accounted for: neither a flow nor a loss.
// What has been lost may be told only later.
func (t Tally) Missing() int64 { return int64(t.Next-t.First) - int64(t.Flows+t.Ring+t.History) }

// flow notes a flow.
func (t *Tally) flow(number uint64) {
	if t.Flows == 0 {
		t.First, t.Next = number, number
	}
	if number < t.Next {
		t.Late++
	}
	t.Flows, t.Next = t.Flows+1, number+1
}

// lost notes a loss. One that precedes all flows is of numbers before the first.
func (t *Tally) lost(l *flowpb.LostEvent) {
	if l.GetSource() == flowpb.LostEventSource_HUBBLE_RING_BUFFER {
		t.History += l.GetNumEventsLost()
	} else {
		t.Ring += l.GetNumEventsLost()
	}
}

// Client is a client that follows all flows.
type Client struct {
	mu    sync.Mutex
	tally Tally
	err   error // why it ended

	stop context.CancelFunc
	done chan struct{}
}

// Tally returns what the client was told so far, and why it ended if it has.
func (c *Client) Tally() (Tally, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally, c.err
}

// Close ends the client.
func (c *Client) Close() {
	c.stop()
	<-c.done
}

// Decoded follows the flows of the node that serves at a Unix socket by grpc-go. No
// later event is missed once it returns.
func Decoded(ctx context.Context, socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("follow flows: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	stream, err := observerpb.NewObserverClient(conn).GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		stop()
		return nil, errors.Join(fmt.Errorf("follow flows: %w", err), conn.Close())
	}
	c := &Client{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer conn.Close()
		for c.receive(stream) {
		}
	}()
	return c, nil
}

// receive takes a message and reports whether there was one.
func (c *Client) receive(stream observerpb.Observer_GetFlowsClient) bool {
	resp, err := stream.Recv()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && resp.GetFlow() != nil {
		var number uint64
		if number, err = numberOf([]byte(resp.GetFlow().GetUuid())); err == nil {
			c.tally.flow(number)
		}
	} else if err == nil && resp.GetLostEvents() != nil {
		c.tally.lost(resp.GetLostEvents())
	}
	c.err = err
	return err == nil
}
