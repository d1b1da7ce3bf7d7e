package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/query"
)

// Verdicts.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Query asks whether a connection is possible.
type Query struct {
	Src   string `json:"src"` // "NAMESPACE/POD" or "ip:ADDR"
	Dst   string `json:"dst"`
	Proto string `json:"proto"` // TCP, UDP, SCTP
	Port  uint16 `json:"port"`
	Want  string `json:"want,omitempty"` // the verdict that is expected, if any is

	err error // why it can't be asked
}

// Answer is what came of a query.
type Answer struct {
	Src       string           `json:"src"`
	Dst       string           `json:"dst"`
	Proto     string           `json:"proto"`
	Port      uint16           `json:"port"`
	Verdict   string           `json:"verdict,omitempty"` // what the packets did
	Seen      string           `json:"seen,omitempty"`    // the same in words
	DecidedBy []rule.PolicyRef `json:"decidedBy"`         // what the dataplane said
	Reason    string           `json:"reason,omitempty"`  // of a verdict that no policy gave
	Audit     bool             `json:"audit,omitempty"`   // allowed only because a denial is an audit
	Want      string           `json:"want,omitempty"`
	Error     string           `json:"error,omitempty"`
	Bad       bool             `json:"-"` // Error is the query's own
}

// Differs reports whether the verdict is not the one that was wanted.
func (a *Answer) Differs() bool { return a.Want != "" && a.Want != a.Verdict }

// ReadQueries reads one query a line. A line that is none becomes a query
// whose answer is an error.
func ReadQueries(r io.Reader) ([]Query, error) {
	var queries []Query
	err := query.Lines(r, func(line []byte, n int) {
		q := parseQuery(line)
		if q.err != nil {
			q.err = fmt.Errorf("line %d: %w", n, q.err)
		}
		queries = append(queries, q)
	})
	return queries, err
}

func parseQuery(line []byte) Query {
	var in struct {
		Query
		Port json.RawMessage `json:"port"` // may be a string, as 'sluice verdict' has it
	}
	err := json.Unmarshal(line, &in)
	q := in.Query
	if q.err = query.Fault(err); q.err != nil {
		return q
	}
	q.Proto = strings.ToUpper(q.Proto)
	if q.Proto == "" {
		q.Proto = "TCP" // as in a NetworkPolicy
	}
	var errs []error
	if q.Src == "" || q.Dst == "" {
		errs = append(errs, errors.New("want src and dst"))
	}
	if !knownProto(q.Proto) {
		errs = append(errs, fmt.Errorf("proto %q: want TCP, UDP or SCTP", q.Proto))
	}
	text := string(in.Port)
	if json.Unmarshal(in.Port, &text) != nil {
		text = string(in.Port)
	}
	if port, err := strconv.ParseUint(text, 10, 16); err != nil || port == 0 {
		errs = append(errs, fmt.Errorf("port %q: want 1 to 65535", text))
	} else {
		q.Port = uint16(port)
	}
	if q.Want != "" && q.Want != Allow && q.Want != Deny {
		errs = append(errs, fmt.Errorf("want %q: want %s or %s", q.Want, Allow, Deny))
	}
	q.err = errors.Join(errs...)
	return q
}

// side is one end of a query.
type side struct {
	ns    *netlab.Namespace
	addrs []netip.Addr
	pod   *pod // nil for the host and beyond
	node  bool // it is the node itself, or a pod in its network
}

// ownNetwork reports whether the side is a pod that policies are enforced on.
func (s *side) ownNetwork() bool { return s.pod != nil && !s.pod.spec.hostNetwork }

// side finds the pod or host that a query names, and builds an external host
// where it names a new one. An address that somebody has means that one.
func (l *Lab) side(name string) (side, error) {
	text, isAddr := strings.CutPrefix(name, "ip:")
	if !isAddr {
		p := l.pods[name]
		if p == nil {
			return side{}, fmt.Errorf("no pod %s", name)
		}
		return side{ns: p.ns, addrs: p.spec.addrs, pod: p, node: p.spec.sharesNode(l.nodeName)}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return side{}, fmt.Errorf("%s: %w", name, err)
	}
	if a = a.Unmap(); netlab.CheckAddr(a) != nil {
		return side{}, netlab.CheckAddr(a)
	}
	one := []netip.Addr{a}
	owner := l.net.Owner(a)
	if p := l.pods[owner]; p != nil {
		return side{ns: p.ns, addrs: one, pod: p}, nil
	}
	if owner == "host" {
		return side{ns: l.net.Host(), addrs: one, node: true}, nil
	}
	e := l.net.External(a)
	if e == nil {
		if e, err = l.net.AddExternal(a); err != nil {
			return side{}, err
		}
	}
	return side{ns: e.Namespace(), addrs: one}, nil
}

// addressPair picks the first address of src of a family that dst has as well, as
// 'sluice verdict' does for the same query.
func addressPair(src, dst side) (from, to netip.Addr, err error) {
	for _, from := range src.addrs {
		i := slices.IndexFunc(dst.addrs, func(a netip.Addr) bool { return a.Is4() == from.Is4() })
		if i >= 0 {
			return from, dst.addrs[i], nil
		}
	}
	return from, to, errors.New("src and dst have no IP family in common")
}
