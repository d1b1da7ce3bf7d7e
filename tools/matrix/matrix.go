package matrix

import (
	"slices"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/tools/verdict"
)

// Options of a Matrix.
type Options struct {
	// Ports to ask about; none means all that rules can tell apart.
	Ports []verdict.Flow
	// Single keeps up to this many pods ungrouped.
	Single int
}

// Default returns the Options of the command line.
func Default() Options { return Options{Single: 24} }

// State sums a cell up.
type State string

// States.
const (
	All     State = "all"     // every port that was asked about
	Some    State = "some"    // some ports
	None    State = "none"    // no port
	Mixed   State = "mixed"   // it depends on which members, or on the family of addresses
	Self    State = "self"    // a pod with itself
	Nothing State = "nothing" // there is nothing to judge: both outside, or no family in common
)

// Cell is what one group may do to another.
type Cell struct {
	State State  `json:"state"`
	Ports Ports  `json:"ports"`           // that are open to all members
	Rules []Rule `json:"rules,omitempty"` // what decided
}

// Matrix is who may reach whom: Cells[i][j] is from Groups[i] to Groups[j].
type Matrix struct {
	Groups []*Group `json:"groups"`
	Cells  [][]Cell `json:"cells"`
	Faults []string `json:"faults,omitempty"` // pods that could not be asked about
}

// New judges all pairs of groups.
func New(c *verdict.Cluster, opts Options) (*Matrix, error) {
	set, pods := c.Compile()
	ends, faults := usable(c)
	key := func(e verdict.End) string { return groupKey(e.Pod) + treatment(set, pods, e.Pod) }
	m := &Matrix{Faults: faults, Groups: group(ends, key, len(ends) <= opts.Single)}
	m.Groups = append(m.Groups, outside(ends, own(c), set)...)
	a := &asker{cluster: c, spans: spansOf(set)}
	if len(opts.Ports) > 0 {
		a.spans = nil
		for _, f := range opts.Ports {
			a.spans = append(a.spans, span{PortSpan: verdict.PortSpan{Flow: f, To: f.Port}})
		}
	}
	for _, src := range m.Groups {
		row := make([]Cell, 0, len(m.Groups))
		for _, dst := range m.Groups {
			cell, err := a.cell(src, dst)
			if err != nil {
				return nil, err
			}
			row = append(row, cell)
		}
		m.Cells = append(m.Cells, row)
	}
	return m, nil
}

// cell judges a pair of groups, by one pair of members if that is enough.
func (a *asker) cell(src, dst *Group) (Cell, error) {
	from, to := src.ends[:1], dst.ends[:1]
	switch {
	case src.Region && dst.Region:
		return Cell{State: Nothing}, nil
	case src == dst && len(src.ends) == 1:
		return Cell{State: Self}, nil
	case src == dst:
		to = dst.ends[1:2]
	}
	if src.host() || dst.host() {
		from, to = perNode(src.ends), perNode(dst.ends)
	}
	var cell Cell
	var open answer // allowed if all pairs are
	judged, mixed := 0, false
	for _, x := range from {
		for _, y := range to {
			pairs, err := verdict.Pairs(x, y)
			if err != nil {
				continue // no family in common
			}
			for _, pair := range pairs {
				ans, err := a.ask(x, y, pair)
				if err != nil {
					return Cell{}, err
				}
				if judged++; judged == 1 {
					open, cell.Rules = slices.Clone(ans), a.rules(ans)
					continue
				}
				for i := range open {
					switch {
					case open[i] == nil:
						open[i] = ans[i]
					case ans[i] != nil && open[i].Allowed != ans[i].Allowed:
						mixed = true
						open[i] = &verdict.Decision{}
					}
				}
			}
		}
	}
	if judged == 0 {
		return Cell{State: Nothing}, nil
	}
	cell.Ports = collect(a.spans, open, func(i int) bool { return open[i].Allowed })
	denied := slices.ContainsFunc(open, func(d *verdict.Decision) bool { return d != nil && !d.Allowed })
	allowed := slices.ContainsFunc(open, func(d *verdict.Decision) bool { return d != nil && d.Allowed })
	switch {
	case mixed:
		cell.State = Mixed
	case !denied:
		cell.State = All
	case allowed:
		cell.State = Some
	default:
		cell.State = None
	}
	return cell, nil
}

// perNode picks one end of each node.
func perNode(ends []verdict.End) []verdict.End {
	var out []verdict.End
	seen := map[string]*store.Pod{}
	for _, e := range ends {
		if e.Pod == nil || seen[e.Pod.NodeName] == nil {
			out = append(out, e)
		}
		if e.Pod != nil {
			seen[e.Pod.NodeName] = e.Pod
		}
	}
	return out
}
