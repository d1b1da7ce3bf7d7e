package verdict

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/query"
)

// Verdicts.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Query is one question, as a line of a file has it.
type Query struct {
	Src, Dst string // NAMESPACE/POD or ip:ADDRESS; Dst svc:NAMESPACE/NAME as well
	Flow     Flow
	Want     string // the verdict that is expected, if any is

	proto string // as it was written
	err   error  // why it can't be asked
}

// Answer is what came of a Query.
type Answer struct {
	Src       string           `json:"src"`
	Dst       string           `json:"dst"`
	Proto     string           `json:"proto"`
	Port      uint16           `json:"port"`
	Verdict   string           `json:"verdict,omitempty"` // none if there is an Error
	DecidedBy []rule.PolicyRef `json:"decidedBy"`
	Reason    string           `json:"reason,omitempty"` // where no policy is one
	Audit     bool             `json:"audit,omitempty"`  // allowed only because a denial is an audit
	Want      string           `json:"want,omitempty"`
	Service   string           `json:"service,omitempty"`  // that the host translates the destination for
	Backends  []Backend        `json:"backends,omitempty"` // where it leads
	Error     string           `json:"error,omitempty"`
}

// Differs reports whether the verdict is not the one that was wanted.
func (a *Answer) Differs() bool { return a.Want != "" && a.Error == "" && a.Want != a.Verdict }

// ReadQueries reads one query a line; empty lines don't count. A line that is
// none becomes a query whose answer is an error.
func ReadQueries(r io.Reader) ([]Query, error) {
	var queries []Query
	err := query.Lines(r, func(line []byte, n int) {
		q := ParseQuery(line)
		if q.err != nil {
			q.err = fmt.Errorf("line %d: %w", n, q.err)
		}
		queries = append(queries, q)
	})
	return queries, err
}

// ParseQuery reads a query from its JSON. Fields that it doesn't know are left
// alone; what is wrong is said by Answer.
func ParseQuery(line []byte) Query {
	var in struct {
		Src   string          `json:"src"`
		Dst   string          `json:"dst"`
		Proto json.RawMessage `json:"proto"`
		Port  json.RawMessage `json:"port"`
		Want  string          `json:"want"`
	}
	err := json.Unmarshal(line, &in)
	q := Query{Src: in.Src, Dst: in.Dst, Want: in.Want, proto: scalar(in.Proto)}
	if q.err = query.Fault(err); q.err != nil {
		return q
	}
	var errs []error
	if q.Src == "" {
		errs = append(errs, errors.New("src: Required value"))
	}
	if q.Dst == "" {
		errs = append(errs, errors.New("dst: Required value"))
	}
	if q.Flow.Protocol, err = ParseProtocol(q.proto); err != nil {
		errs = append(errs, err)
	} else if q.Flow.Port, err = ParsePort(q.Flow.Protocol, scalar(in.Port)); err != nil {
		errs = append(errs, err)
	}
	if q.Want != "" && q.Want != Allow && q.Want != Deny && q.Want != Some {
		errs = append(errs, fmt.Errorf("want %q: want %s or %s, or %s of a Service's backends", q.Want, Allow, Deny, Some))
	}
	q.err = together(errs...)
	return q
}

// scalar returns a JSON string or number as text.
func scalar(raw json.RawMessage) string {
	var s string
	switch {
	case len(raw) == 0 || bytes.Equal(raw, []byte("null")):
		return ""
	case json.Unmarshal(raw, &s) == nil:
		return s
	}
	return string(raw)
}

// Unanswered is the answer when there is no cluster to ask: what is wrong with
// the query itself, else err.
func (q Query) Unanswered(err error) Answer {
	a := q.answer()
	a.Error = cmp.Or(q.err, err).Error()
	return a
}

// answer is the part of an Answer that repeats the question.
func (q Query) answer() Answer {
	a := Answer{Src: q.Src, Dst: q.Dst, Proto: q.proto, Port: q.Flow.Port, Want: q.Want, DecidedBy: []rule.PolicyRef{}}
	if q.Flow.Protocol != 0 {
		a.Proto = ProtocolName(q.Flow.Protocol)
	}
	return a
}

// Answer answers a query. What can't be answered has an Error.
func (c *Cluster) Answer(q Query) Answer {
	a := q.answer()
	if err := c.answer(q, &a); err != nil {
		a.Error = err.Error()
	}
	return a
}

func (c *Cluster) answer(q Query, a *Answer) error {
	if q.err != nil {
		return q.err
	}
	src, err1 := c.End(q.Src)
	dst, err2 := c.End(q.Dst)
	if err := together(err1, err2, calls(src)); err != nil {
		return err
	}
	pairs, err := Pairs(src, dst)
	if err != nil {
		return err
	}
	s, err := c.served(src, dst, pairs[0], q.Flow)
	if err != nil {
		return err
	}
	if s != nil {
		a.Verdict, a.Service, a.Backends = s.verdict, s.name, s.backends
		a.DecidedBy, a.Reason, a.Audit = s.decidedBy()
		return nil
	}
	d, err := c.Judge(src, dst, pairs[0], q.Flow)
	if err != nil {
		return err
	}
	a.Verdict = word(d.Allowed)
	a.DecidedBy = append(a.DecidedBy, d.DecidedBy...)
	a.Reason, a.Audit = d.Reason, d.Audit
	return nil
}

// calls returns an error if an end can't open connections.
func calls(src End) error {
	if src.Service != nil {
		return fmt.Errorf("Service %s: is no source: ask about its pods", src.Service.Key())
	}
	return nil
}
