package observe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-net/sluice/dataplane/event"
)

// ErrCapturing says that somebody else captures packets.
var ErrCapturing = errors.New("packets are being captured already")

// captureEvery is how often the workers' rings of packets are emptied: they hold
// some hundred each.
const captureEvery = 5 * time.Millisecond

// Capture calls visit with packets that were judged and the flow that names the
// verdict, up to snapLen bytes of each from the IP header on; what visit is given
// is valid until it returns. After each round it calls told with how many packets
// found no room in the workers' rings so far. It goes on until ctx ends or one of
// them returns an error, which is returned. There is one capture at a time.
func (o *Observer) Capture(ctx context.Context, snapLen int, want event.Interest,
	visit func(f *Flow, length int, data []byte) error, told func(lost uint64) error) error {
	select {
	case <-o.capture:
	default:
		return ErrCapturing
	}
	defer func() { o.capture <- struct{}{} }()
	if err := o.source.StartCapture(snapLen, want); err != nil {
		return fmt.Errorf("capture packets: %w", err)
	}
	defer o.source.StopCapture()
	for tick := time.Tick(captureEvery); ; {
		var fault error
		lost := o.source.ReadPackets(func(rec *event.Record, length int, data []byte) {
			if fault != nil {
				return
			}
			o.naming.Lock()
			f := Flow{Record: *rec}
			o.resolve(&f)
			o.naming.Unlock()
			fault = visit(&f, length, data)
		})
		if fault == nil {
			fault = told(lost)
		}
		if fault != nil {
			return fault
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
		}
	}
}
