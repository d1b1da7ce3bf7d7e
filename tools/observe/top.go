package observe

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/verdict"
)

// maxPairs bounds how many pairs are counted at a time; those with the least are
// forgotten, and counted together.
const maxPairs = 1 << 14

// Pair is who talks to whom: workloads where they are known, a protocol and a
// port.
type Pair struct {
	Src   string `json:"src"`
	Dst   string `json:"dst"`
	Proto string `json:"proto"`
	Port  uint16 `json:"port,omitempty"`
}

// PairCount is what was seen of a pair.
type PairCount struct {
	Pair
	Flows    uint64 `json:"flows"`              // new ones that were allowed
	Denied   uint64 `json:"denied"`             // packets
	Packets  uint64 `json:"packets"`            // of flows that ended, both ways
	Bytes    uint64 `json:"bytes"`              // likewise
	DeniedBy string `json:"deniedBy,omitempty"` // the last time
}

// Top counts by pairs. It belongs to one goroutine.
type Top struct {
	pairs     map[Pair]*PairCount
	Events    uint64
	Lost      uint64
	Forgotten uint64 // pairs
}

// NewTop returns an empty Top.
func NewTop() *Top { return &Top{pairs: map[Pair]*PairCount{}} }

// Add counts an event.
func (t *Top) Add(e *Event) {
	if e.Event == Lost {
		t.Lost += e.Lost
		return
	}
	t.Events++
	src, dst := &e.Src, &e.Dst
	if e.Reply {
		src, dst = dst, src
	}
	k := Pair{Src: owner(src), Dst: owner(dst), Proto: e.Proto, Port: dst.Port}
	c := t.pairs[k]
	if c == nil {
		if len(t.pairs) >= maxPairs {
			t.forget()
		}
		c = &PairCount{Pair: k}
		t.pairs[k] = c
	}
	switch {
	case e.Verdict == verdict.Deny && e.Event == "denied":
		c.Denied += 1 + uint64(e.Suppressed)
		once := Event{Flow: e.Flow}
		once.Suppressed = 0
		c.DeniedBy = once.Cause(false)
	case e.Event == "new":
		c.Flows++
	case e.Event == "ended":
		c.Packets += e.Packets[0] + e.Packets[1]
		c.Bytes += e.Bytes[0] + e.Bytes[1]
	}
}

// owner names an end by its workload, or as EndText does.
func owner(e *api.End) string {
	if e.Workload != "" {
		return e.Namespace + "/" + e.Workload
	}
	return EndText(e, false)
}

// forget makes room: the quieter half goes.
func (t *Top) forget() {
	all := slices.SortedFunc(maps.Values(t.pairs), func(a, b *PairCount) int {
		return cmp.Or(cmp.Compare(a.Denied+a.Flows+a.Packets, b.Denied+b.Flows+b.Packets), compare(a, b))
	})
	for _, c := range all[:len(all)/2] {
		delete(t.pairs, c.Pair)
		t.Forgotten++
	}
}

func compare(a, b *PairCount) int {
	return cmp.Or(cmp.Compare(a.Src, b.Src), cmp.Compare(a.Dst, b.Dst), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

// Report is the busiest pairs, and those that are denied most.
type Report struct {
	Events    uint64       `json:"events"`
	Lost      uint64       `json:"lost"`
	Forgotten uint64       `json:"forgotten,omitempty"` // pairs that there was no room for
	Busiest   []*PairCount `json:"busiest"`
	Denied    []*PairCount `json:"denied"`
}

// Report returns up to n pairs of each kind.
func (t *Top) Report(n int) *Report {
	pick := func(weight func(*PairCount) uint64, then func(*PairCount) uint64) []*PairCount {
		out := slices.SortedFunc(maps.Values(t.pairs), func(a, b *PairCount) int {
			return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(then(b), then(a)), compare(a, b))
		})
		out = slices.DeleteFunc(out, func(c *PairCount) bool { return weight(c)+then(c) == 0 })
		return append([]*PairCount{}, out[:min(n, len(out))]...)
	}
	flows := func(c *PairCount) uint64 { return c.Flows }
	none := func(*PairCount) uint64 { return 0 }
	return &Report{Events: t.Events, Lost: t.Lost, Forgotten: t.Forgotten,
		Busiest: pick(func(c *PairCount) uint64 { return c.Bytes }, flows),
		Denied:  pick(func(c *PairCount) uint64 { return c.Denied }, none)}
}

// JSON writes the report on a line.
func (r *Report) JSON(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// Text writes the report as tables.
func (r *Report) Text(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d events, %d lost\n\nBUSIEST\tDESTINATION\tPORT\tFLOWS\tPACKETS\tBYTES\n", r.Events, r.Lost)
	for _, c := range r.Busiest {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", c.Src, c.Dst, c.port(), c.Flows, c.Packets, Bytes(c.Bytes))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nMOST DENIED\tDESTINATION\tPORT\tPACKETS\tCAUSE\n")
	for _, c := range r.Denied {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", c.Src, c.Dst, c.port(), c.Denied, c.DeniedBy)
	}
	return w.Flush()
}

func (p *Pair) port() string {
	if p.Port == 0 {
		return p.Proto
	}
	return p.Proto + "/" + strconv.Itoa(int(p.Port))
}
