package observe_test

import (
	"errors"
	"testing"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/event"
)

// interest is what the workers are asked for.
type interest struct {
	*observetest.Source
	now event.Interest
}

func (i *interest) SetInterest(now event.Interest) { i.now = now }

// Who is told that no later event can be missed is told when the workers have been
// asked for all of them, not for those alone that the history keeps.
func TestOpened(t *testing.T) {
	src, err := observetest.New(64)
	if err != nil {
		t.Fatal(err)
	}
	i := &interest{Source: src}
	o := observe.New(i, src, 64, event.WantDenied)
	end, opened := errors.New("end"), false
	err = o.Flows(t.Context(), 0, true, func() {
		if opened = true; i.now != event.WantAll {
			t.Errorf("the workers are asked for %b, want %b", i.now, event.WantAll)
		}
	}, func(*api.Flow) error { return end })
	if !errors.Is(err, end) || !opened {
		t.Errorf("opened %t: %v", opened, err)
	}
	if i.now != event.WantDenied {
		t.Errorf("afterwards the workers are asked for %b, want %b", i.now, event.WantDenied)
	}
}
