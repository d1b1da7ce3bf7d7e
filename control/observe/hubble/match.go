package hubble

import (
	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/dataplane/event"
)

// Matcher says which events pass Hubble's filters, for others than Hubble's
// clients. It belongs to one goroutine.
type Matcher struct {
	filters *filter.Set
	conv    *converter
}

// NewMatcher compiles filters of a node of these labels; the error is a *filter.Error.
func NewMatcher(node string, labels []string, allow, deny []*flowpb.FlowFilter) (*Matcher, error) {
	filters, err := filter.Compile(allow, deny)
	if err != nil {
		return nil, err
	}
	return &Matcher{filters: filters, conv: newConverter(origin{node: node, labels: labels})}, nil
}

// Interest returns the events that can pass.
func (m *Matcher) Interest() event.Interest { return m.filters.Interest() }

// Match reports whether a view of an event passes.
func (m *Matcher) Match(f *observe.Flow) bool {
	for v := range f.Views() {
		if m.filters.Match(m.conv.flow(f, v)) {
			return true
		}
	}
	return false
}
