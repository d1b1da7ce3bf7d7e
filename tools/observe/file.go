package observe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-net/sluice/control/api"
)

// maxLine is the longest line of a file of flows, bytes.
const maxLine = 1 << 20

// ReadFile reads flows as -o jsonl and -o json write them, the latter as hubble
// observe does, one a line.
func ReadFile(in io.Reader) ([]api.Flow, error) {
	var out []api.Flow
	take := func(e *Event) error { out = append(out, e.Flow); return nil }
	var j joiner
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var kind struct {
			Event      string
			Flow       json.RawMessage
			LostEvents json.RawMessage `json:"lost_events"`
			NodeStatus json.RawMessage `json:"node_status"`
		}
		if err := json.Unmarshal(line, &kind); err != nil {
			return nil, fmt.Errorf("read flows: line %d: %w", n, err)
		}
		switch {
		case kind.Flow != nil || kind.LostEvents != nil || kind.NodeStatus != nil:
			resp := &observerpb.GetFlowsResponse{}
			if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(line, resp); err != nil {
				return nil, fmt.Errorf("read flows: line %d: %w", n, err)
			}
			if err := j.add(resp, take); err != nil {
				return nil, err
			}
		case kind.Event != "":
			var e Event
			if err := json.Unmarshal(line, &e.Flow); err != nil {
				return nil, fmt.Errorf("read flows: line %d: %w", n, err)
			}
			if err := j.flush(take); err != nil {
				return nil, err
			}
			out = append(out, e.Flow)
		default:
			return nil, fmt.Errorf("read flows: line %d: no flow of 'sluice observe -o jsonl' or 'hubble observe -o jsonpb'", n)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	return out, j.flush(take)
}
