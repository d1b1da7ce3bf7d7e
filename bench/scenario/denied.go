package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// denied floods with what no rule allows. A packet that was sent and did not
// arrive was dropped; one that arrives is a fault.
func denied(inner runFunc) runFunc {
	return func(ctx context.Context, s *Stage, d time.Duration) ([]Metric, error) {
		ms, err := inner(ctx, s, d)
		if err != nil {
			return nil, err
		}
		received, sent := find(ms, "received"), find(ms, "sent")
		if received == nil || sent == nil {
			return nil, errors.New("this workload counts what is sent and received")
		}
		if received.Value > 0 && s.enforces {
			return nil, fmt.Errorf("%g Mpps arrived that no rule allows", received.Value)
		}
		received.Value, received.Name = sent.Value, "dropped"
		return ms, nil
	}
}

// find returns the metric of a name, or nil.
func find(ms []Metric, name string) *Metric {
	for i := range ms {
		if ms[i].Name == name {
			return &ms[i]
		}
	}
	return nil
}
