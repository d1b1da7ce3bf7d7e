package listen

import (
	"encoding/binary"
	"fmt"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/proto"
)

func uuid(n uint64) string {
	n |= 1 << 63
	return fmt.Sprintf("00000000-0000-8000-%04x-%012x", n>>48, n&(1<<48-1))
}

func encoded(t *testing.T, resp *observerpb.GetFlowsResponse) []byte {
	t.Helper()
	b, err := proto.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

func flow(t *testing.T, n uint64) []byte {
	return encoded(t, &observerpb.GetFlowsResponse{NodeName: "n", ResponseTypes: &observerpb.GetFlowsResponse_Flow{
		Flow: &flowpb.Flow{Uuid: uuid(n), Verdict: flowpb.Verdict_FORWARDED, NodeName: "n", Summary: "UDP"}}})
}

func loss(t *testing.T, source flowpb.LostEventSource, n uint64) []byte {
	return encoded(t, &observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{
		LostEvents: &flowpb.LostEvent{Source: source, NumEventsLost: n}}})
}

// However the stream is cut, the messages in it are found, and what is missing
// between them.
func TestTally(t *testing.T) {
	const ring, history = flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, flowpb.LostEventSource_HUBBLE_RING_BUFFER
	for _, c := range []struct {
		name    string
		in      [][]byte
		want    Tally
		missing int64
	}{
		{"nothing", nil, Tally{}, 0},
		{"in order", [][]byte{flow(t, 7), flow(t, 8)}, Tally{Flows: 2, First: 7, Next: 9}, 0},
		{"large numbers", [][]byte{flow(t, 1<<62-2), flow(t, 1<<62-1)}, Tally{Flows: 2, First: 1<<62 - 2, Next: 1 << 62}, 0},
		{"lost and told", [][]byte{flow(t, 7), loss(t, ring, 3), flow(t, 11), flow(t, 15), loss(t, history, 3)},
			Tally{Flows: 3, Ring: 3, History: 3, First: 7, Next: 16}, 0},
		{"lost and not told", [][]byte{flow(t, 7), flow(t, 9)}, Tally{Flows: 2, First: 7, Next: 10}, 1},
		{"twice", [][]byte{flow(t, 7), flow(t, 7)}, Tally{Flows: 2, First: 7, Next: 8, Late: 1}, -1},
	} {
		var all []byte
		for _, m := range c.in {
			all = append(all, m...)
		}
		for _, size := range []int{1, 3, 64, 1 << 10} {
			var m messages
			var got Tally
			for at := 0; at < len(all); at += size {
				if err := m.take(all[at:min(at+size, len(all))], got.message); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
			}
			if got != c.want || got.Missing() != c.missing || len(m.rest) > 0 {
				t.Errorf("%s, by %d bytes: %+v, %d missing, %d bytes left", c.name, size, got, got.Missing(), len(m.rest))
			}
		}
	}
}

// What is not understood is an error, not a flow.
func TestMalformed(t *testing.T) {
	for name, m := range map[string][]byte{
		"a tag alone": {0x0a}, "a length without its bytes": {0x0a, 9, 1}, "a flow without an id": {0x0a, 0},
		"an id that is none": {0x0a, 5, 0x92, 0x02, 2, 'x', 'y'}, "a loss that is none": {0x1a, 1, 0xff}, "a number cut off": {0x08, 0x80},
	} {
		var got Tally
		if err := got.message(m); err == nil || got != (Tally{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
