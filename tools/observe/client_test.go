package observe_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-net/sluice/tools/observe"
)

// ending is a server whose stream ends by an error, without an event.
type ending struct {
	observerpb.ObserverClient
	grpc.ClientStream
	err error
}

func (e ending) GetFlows(context.Context, *observerpb.GetFlowsRequest, ...grpc.CallOption) (grpc.ServerStreamingClient[observerpb.GetFlowsResponse], error) {
	return e, nil
}

func (e ending) Recv() (*observerpb.GetFlowsResponse, error) { return nil, e.err }

// The server may end what was asked for a time before the client's own clock
// does; it is only then that this is no error.
func TestReadUntilDeadline(t *testing.T) {
	bounded, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	late := status.Error(codes.DeadlineExceeded, "stream terminated")
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want string
	}{
		{"time is up at the server", bounded, late, ""},
		{"nobody set a limit", t.Context(), late, "DeadlineExceeded"},
		{"another error within the time", bounded, status.Error(codes.Unavailable, "gone"), "Unavailable: gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := observe.Read(tt.ctx, ending{err: tt.err}, &observe.Selection{Follow: true},
				func(*observe.Event) error { return nil }, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// endless is a server that has always more.
type endless struct {
	observerpb.ObserverClient
	grpc.ClientStream
	ctx *context.Context // of the request
}

func (e endless) GetFlows(ctx context.Context, _ *observerpb.GetFlowsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[observerpb.GetFlowsResponse], error) {
	*e.ctx = ctx
	return e, nil
}

func (endless) Recv() (*observerpb.GetFlowsResponse, error) {
	return &observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: &flowpb.Flow{}}}, nil
}

// Who has what was asked for, or can't take it, leaves no stream open.
func TestReadEndsStream(t *testing.T) {
	full := errors.New("full")
	for _, want := range []error{nil, full} {
		var ctx context.Context
		err := observe.Read(t.Context(), endless{ctx: &ctx}, &observe.Selection{First: 1}, func(*observe.Event) error { return want }, nil)
		if err != want || ctx.Err() == nil {
			t.Errorf("ended with %v, want %v; the stream's context: %v", err, want, ctx.Err())
		}
	}
}
