package observe_test

import (
	"context"
	"strings"
	"testing"
	"time"

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
