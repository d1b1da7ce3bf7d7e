package web

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// query says which flows a browser wants. All that is set must hold.
type query struct {
	verdict   string // allow, deny or audit
	namespace string // of either end
	text      string // part of a name, an address or a policy, in lower case
	port      uint16 // of either end
	ends      bool   // list ends of flows as well: they count for edges in any case
}

func parseQuery(values url.Values) (*query, error) {
	q := &query{}
	for name, v := range values {
		value := v[len(v)-1]
		switch name {
		case "verdict":
			if value != "" && value != "allow" && value != "deny" && value != "audit" {
				return nil, fmt.Errorf("verdict %q: want allow, deny or audit", value)
			}
			q.verdict = value
		case "namespace":
			q.namespace = value
		case "q":
			if len(value) > 256 {
				return nil, fmt.Errorf("q of %d bytes: want up to 256", len(value))
			}
			q.text = strings.ToLower(strings.TrimSpace(value))
		case "ends":
			var err error
			if q.ends, err = strconv.ParseBool(value); err != nil {
				return nil, fmt.Errorf("ends %q: want true or false", value)
			}
		case "port":
			if value == "" {
				continue
			}
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("port %q: want 1 to 65535", value)
			}
			q.port = uint16(n)
		default:
			return nil, fmt.Errorf("unknown parameter %q", name)
		}
	}
	return q, nil
}

// interest is what the workers must generate for it.
func (q *query) interest() event.Interest {
	if q.verdict == "deny" {
		return event.WantDenied
	}
	return event.WantAll
}

func (q *query) match(f *observe.Flow) bool {
	if q.verdict != "" && verdictOf(f) != q.verdict {
		return false
	}
	if q.namespace != "" && f.Src.Namespace != q.namespace && f.Dst.Namespace != q.namespace {
		return false
	}
	src, dst, sport, dport := f.Key.Tuple(f.Side)
	if q.port != 0 && (sport != q.port && dport != q.port || isICMP(f)) {
		return false
	}
	if q.text == "" {
		return true
	}
	for _, e := range [2]*observe.End{f.Src, f.Dst} {
		if q.in(e.Namespace+"/"+e.Pod) || q.in(e.Workload) {
			return true
		}
	}
	for _, refs := range [2][]string{policyNames(f.Egress), policyNames(f.Ingress)} {
		for _, name := range refs {
			if q.in(name) {
				return true
			}
		}
	}
	return q.in(src.Netip().String()) || q.in(dst.Netip().String()) || q.in(f.Reason.String())
}

func (q *query) in(s string) bool { return s != "" && strings.Contains(strings.ToLower(s), q.text) }

func policyNames(c *rule.Cause) (names []string) {
	for _, r := range c.Refs {
		names = append(names, r.Namespace+"/"+r.Name)
	}
	return names
}
