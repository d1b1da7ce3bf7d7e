// Package suggest derives from flows that were observed the least
// NetworkPolicies that allow them: one for the pods of a kind, with a rule for
// each set of ports and the peers that used it. What was not seen is denied, in
// both directions. The same flows give the same policies, byte for byte.
//
// Policies are made for pods of the nodes that the flows are from; of others only
// a part of what they do was seen. Check asks the engine of sluice verdict
// whether the policies allow each flow that they are from.
package suggest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/api"
)

// Options say which flows count.
type Options struct {
	Denied     bool     // what policy denied is to be allowed as well
	Replies    bool     // a packet of a reply stands for its flow, as where its first one was not seen
	Namespaces []string // of the pods that get policies; all if empty
	MaxBlocks  int      // CIDRs of a rule; more addresses are put together into wider ones
}

// Default returns the options of who says nothing else.
func Default() Options { return Options{MaxBlocks: 32} }

// Result is what came of flows.
type Result struct {
	Policies []*Policy
	// Left out, or to be looked at by somebody who knows.
	Notes []string

	conns   []*conn
	parties map[string]*party
}

// party is an end of connections: a pod, or an address.
type party struct {
	namespace, pod string // of a pod
	workload       string
	labels         map[string]string // of a pod: those that last
	nsLabels       map[string]string
	addrs          []netip.Addr // in the order in which they were seen
	local          bool         // its node judged
	reserved       string       // of what is no pod: host, remote-node or world
	group          *group
}

func (p *party) isPod() bool { return p.pod != "" }

// String is what queries and comments call it.
func (p *party) String() string {
	if p.isPod() {
		return p.namespace + "/" + p.pod
	}
	return "ip:" + p.addrs[0].String()
}

// conn is connections that no policy tells apart.
type conn struct {
	src, dst *party
	proto    string
	port     uint16
	flows    int
}

func (c *conn) String() string {
	return fmt.Sprintf("%s -> %s %s/%d", strings.TrimPrefix(c.src.String(), "ip:"), strings.TrimPrefix(c.dst.String(), "ip:"), c.proto, c.port)
}

func compareConns(a, b *conn) int {
	return cmp.Or(cmp.Compare(a.src.String(), b.src.String()), cmp.Compare(a.dst.String(), b.dst.String()),
		cmp.Compare(a.proto, b.proto), cmp.Compare(a.port, b.port))
}

// From derives policies from flows.
func From(flows []api.Flow, o Options) (*Result, error) {
	r := &Result{parties: map[string]*party{}}
	r.collect(flows, o)
	groups := r.group()
	for _, g := range groups {
		if len(o.Namespaces) > 0 && !slices.Contains(o.Namespaces, g.namespace) || !g.local() {
			continue
		}
		if len(g.selector) == 0 {
			r.note("%s has no label that lasts: no policy can select it alone, so there is none", g.pods[0])
			continue
		}
		r.Policies = append(r.Policies, r.policy(g, o))
	}
	names := map[string]bool{}
	for _, p := range r.Policies {
		base := p.Name
		for n := 2; names[p.Namespace+"/"+p.Name]; n++ {
			p.Name = fmt.Sprintf("%s-%d", base, n)
		}
		names[p.Namespace+"/"+p.Name] = true
	}
	return r, nil
}

func (r *Result) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

// collect finds connections among flows.
func (r *Result) collect(flows []api.Flow, o Options) {
	conns := map[string]*conn{}
	lost := uint64(0)
	for i := range flows {
		f := &flows[i]
		lost += f.Lost
		if f.Event == "lost" || f.Reply && !o.Replies || f.Verdict == "deny" && (!o.Denied || f.Reason != "policy") {
			continue
		}
		src, dst := f.Src, f.Dst
		if f.Reply {
			src, dst = dst, src
		}
		c := &conn{src: r.party(&src), dst: r.party(&dst), proto: f.Proto, port: dst.Port}
		switch {
		case c.src == c.dst || c.src == nil || c.dst == nil:
			continue // a pod reaches itself
		case f.Proto != "TCP" && f.Proto != "UDP" && f.Proto != "SCTP" || dst.Port == 0:
			r.note("%s: left out, NetworkPolicy has no word for it", strings.TrimSuffix(c.String(), "/0"))
			continue
		}
		if was := conns[c.String()]; was != nil {
			c = was
		} else {
			conns[c.String()] = c
			r.conns = append(r.conns, c)
		}
		if f.Event != "ended" || c.flows == 0 { // which was new before, most often
			c.flows++
		}
	}
	slices.SortFunc(r.conns, compareConns)
	slices.Sort(r.Notes)
	if lost > 0 {
		r.note("%d events were lost: what only they showed is missing", lost)
	}
}

// party finds or makes the party of an end.
func (r *Result) party(e *api.End) *party {
	if !e.Addr.IsValid() {
		return nil
	}
	key := "ip:" + e.Addr.String()
	if e.Pod != "" {
		key = e.Namespace + "/" + e.Pod
	}
	p := r.parties[key]
	if p == nil {
		p = &party{namespace: e.Namespace, pod: e.Pod}
		r.parties[key] = p
	}
	p.local = p.local || e.Endpoint != 0
	if !slices.Contains(p.addrs, e.Addr) {
		p.addrs = append(p.addrs, e.Addr)
	}
	if e.Workload != "" {
		p.workload = e.Workload
	}
	if !p.isPod() {
		for _, l := range e.Labels {
			if name, ok := strings.CutPrefix(l, "reserved:"); ok {
				p.reserved = name
			}
		}
		return p
	}
	// The last labels hold: it may have been made anew.
	p.labels, p.nsLabels = lasting(e.Labels)
	return p
}
