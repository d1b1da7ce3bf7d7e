package web

import (
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

const (
	mostRows  = 60   // of a message
	mostEdges = 1500 // likewise
)

// row is one flow of the list.
type row struct {
	Number uint64 `json:"number"` // of the event: the same for all browsers
	api.Flow
	From node `json:"from"` // who opened the flow, and to whom
	To   node `json:"to"`
}

// node is an end in the graph: a workload, a pod without one, or what is no pod.
type node struct {
	Kind      string `json:"kind"` // pod, host, node, world
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// edge sums up flows of one kind between two nodes.
type edge struct {
	From      node             `json:"from"`
	To        node             `json:"to"`
	Proto     string           `json:"proto"`
	Port      uint16           `json:"port"`
	Verdict   string           `json:"verdict"` // allow, deny or audit
	Flows     uint64           `json:"flows"`   // verdicts
	Packets   uint64           `json:"packets"` // denied ones, or of flows that ended
	Bytes     uint64           `json:"bytes"`   // of flows that ended
	Reason    string           `json:"reason"`
	Text      string           `json:"text,omitempty"`
	DecidedBy []rule.PolicyRef `json:"decidedBy"`
}

type edgeKey struct {
	from, to        node
	proto           packet.Proto
	port            uint16
	verdict         string
	egress, ingress rule.CauseID
}

// sums is what happened since the last message.
type sums struct {
	ends   bool // list ends of flows
	edges  map[edgeKey]*edge
	rows   []kept // a ring
	at     int
	seen   uint64
	hidden uint64
	nodes  map[*observe.End]node
}

// kept is a flow that may become a row: most are pushed out before.
type kept struct {
	number   uint64
	flow     observe.Flow
	from, to node
}

func newSums(ends bool) *sums {
	return &sums{ends: ends, edges: map[edgeKey]*edge{}, nodes: map[*observe.End]node{}}
}

// add counts an event.
func (s *sums) add(number uint64, f *observe.Flow) {
	s.seen++
	src, dst := f.Initiator()
	key := edgeKey{from: s.node(src), to: s.node(dst), proto: f.Key.Proto, verdict: verdictOf(f), egress: f.Record.Egress, ingress: f.Record.Ingress}
	_, _, sport, dport := f.Key.Tuple(f.Side)
	if key.port = dport; f.Reply {
		key.port = sport
	}
	if isICMP(f) {
		key.port = 0
	}
	e := s.edges[key]
	if e == nil {
		if len(s.edges) >= mostEdges {
			s.hidden++
			s.keep(number, f, &key)
			return
		}
		j := observe.JSON(f)
		e = &edge{From: key.from, To: key.to, Proto: j.Proto, Port: key.port, Verdict: key.verdict, Reason: j.Reason, Text: j.Text, DecidedBy: j.DecidedBy}
		s.edges[key] = e
	}
	switch {
	case f.Kind == event.Ended:
		e.Packets += f.Packets[0] + f.Packets[1]
		e.Bytes += f.Bytes[0] + f.Bytes[1]
	case !f.Allowed:
		e.Flows++
		e.Packets += 1 + uint64(f.Suppressed)
	default:
		e.Flows++
	}
	s.keep(number, f, &key)
}

// keep remembers the newest.
func (s *sums) keep(number uint64, f *observe.Flow, key *edgeKey) {
	if f.Kind == event.Ended && !s.ends {
		return
	}
	r := kept{number, *f, key.from, key.to}
	if len(s.rows) < mostRows {
		s.rows = append(s.rows, r)
		return
	}
	s.rows[s.at] = r
	s.at = (s.at + 1) % mostRows
}

// into moves all of it into a message.
func (s *sums) into(m *message) {
	m.Seen, m.Hidden = s.seen, s.hidden
	m.Flows, m.Edges = make([]row, 0, len(s.rows)), make([]*edge, 0, len(s.edges))
	for i := range s.rows {
		k := &s.rows[(s.at+len(s.rows)-1-i)%len(s.rows)]
		m.Flows = append(m.Flows, row{Number: k.number, Flow: observe.JSON(&k.flow), From: k.from, To: k.to})
	}
	for _, e := range s.edges {
		m.Edges = append(m.Edges, e)
	}
	clear(s.edges)
	s.rows, s.at, s.seen, s.hidden = s.rows[:0], 0, 0, 0
	if len(s.nodes) > 1<<14 {
		clear(s.nodes)
	}
}

// isICMP reports whether the ports of a flow's key are none, but the number of an
// echo.
func isICMP(f *observe.Flow) bool {
	return f.Key.Proto == packet.ProtoICMP || f.Key.Proto == packet.ProtoICMPv6
}

func verdictOf(f *observe.Flow) string {
	switch {
	case !f.Allowed:
		return "deny"
	case f.Audit:
		return "audit"
	}
	return "allow"
}

// node names an end as the graph shows it.
func (s *sums) node(e *observe.End) node {
	n, ok := s.nodes[e]
	if ok {
		return n
	}
	switch {
	case e.Workload != "":
		n = node{"pod", e.Namespace, e.Workload}
	case e.Pod != "":
		n = node{"pod", e.Namespace, e.Pod}
	case e.Identity == observe.IdentityHost:
		n = node{Kind: "host", Name: "this node"}
	case e.Identity == observe.IdentityRemoteNode:
		n = node{Kind: "node", Name: e.Node}
	default:
		n = node{Kind: "world", Name: "outside"}
	}
	s.nodes[e] = n
	return n
}
