package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Some is the verdict on a Service some of whose backends can be reached, and
// others not: which of them the node chooses is not for policy to say.
const Some = "some"

// svcPrefix marks a Service as a destination: svc:NAMESPACE/NAME.
const svcPrefix = "svc:"

// Backend is where a connection to a Service may go.
type Backend struct {
	Addr      netip.AddrPort   `json:"addr"`
	Pod       string           `json:"pod,omitempty"`
	Verdict   string           `json:"verdict"`
	DecidedBy []rule.PolicyRef `json:"decidedBy"`
	Reason    string           `json:"reason,omitempty"`
	Audit     bool             `json:"audit,omitempty"`

	end End
}

// served is a Service as the destination of one flow.
type served struct {
	name     string // NAMESPACE/NAME
	backends []Backend
	// What the caller's own policies say where it calls: how many they allow, and
	// what of one of them, or of all.
	open    int
	egress  Decision
	verdict string
}

func svcEnd(v store.View, name string) (End, error) {
	ns, svc, ok := strings.Cut(name, "/")
	if !ok || ns == "" || svc == "" || strings.Contains(svc, "/") {
		return End{}, fmt.Errorf("%s%s: want %sNAMESPACE/NAME", svcPrefix, name, svcPrefix)
	}
	s := v.Service(store.Key{Namespace: ns, Name: svc})
	switch {
	case s == nil:
		return End{}, fmt.Errorf("Service %s: not found", name)
	case len(s.Addrs) == 0:
		return End{}, fmt.Errorf("Service %s: has no address that nodes translate (headless, or a name only): ask about its pods", name)
	}
	return End{Service: s, Addrs: s.Addrs}, nil
}

// serving returns the Service and port that a flow to an end is a call of;
// nil if the caller's node would not translate it.
func serving(v store.View, src, dst End, pair Pair, f Flow) (*store.Service, int, error) {
	exposes := func(s *store.Service, node bool) int {
		return slices.IndexFunc(s.Exposed, func(p store.ServicePort) bool {
			port := p.Port
			if node {
				port = p.NodePort
			}
			return p.Protocol == f.Protocol && port == f.Port && port != 0
		})
	}
	if s := dst.Service; s != nil {
		if i := exposes(s, false); i >= 0 {
			return s, i, nil
		}
		var ports []string
		for _, p := range s.Exposed {
			ports = append(ports, Flow{p.Protocol, p.Port}.String())
		}
		return nil, 0, fmt.Errorf("Service %s: has no port %s: it has %s", s.Key(), f, strings.Join(ports, ", "))
	}
	if dst.Pod != nil && !dst.Pod.HostNetwork {
		return nil, 0, nil
	}
	linkLocal := pair.Dst.Is6() && pair.Dst.IsLinkLocalUnicast() // the host's, on the pod's link
	own := src.Judged() && (linkLocal || slices.Contains(nodeAddrs(v, src.Pod.NodeName), pair.Dst))
	all := slices.SortedFunc(v.AllServices(), func(a, b *store.Service) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	for _, s := range all {
		if slices.Contains(s.Addrs, pair.Dst) {
			if i := exposes(s, false); i >= 0 {
				return s, i, nil
			}
		}
		if own {
			if i := exposes(s, true); i >= 0 {
				return s, i, nil
			}
		}
	}
	return nil, 0, nil
}

// backends lists where a port of a Service leads to. Without EndpointSlices,
// as in manifests that are not from a cluster, they are those that a cluster
// would make of its selector.
func backends(v store.View, s *store.Service, port int) []netip.AddrPort {
	if len(v.EndpointSlices(s.Key())) > 0 || len(s.Selector) == 0 {
		return v.Backends(s, &s.Exposed[port])
	}
	var out []netip.AddrPort
	target := s.Ports[port]
	for p := range v.Pods() {
		if p.Namespace != s.Namespace || !carries(p.Labels, s.Selector) {
			continue
		}
		number := target.Port
		if number == 0 {
			i := slices.IndexFunc(p.Ports, func(n store.NamedPort) bool { return n.Name == target.Name && n.Protocol == target.Protocol })
			if i < 0 {
				continue
			}
			number = p.Ports[i].Port
		}
		for _, a := range p.Addrs() {
			out = append(out, netip.AddrPortFrom(a, number))
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

func carries(labels, selector map[string]string) bool {
	for k, want := range selector {
		if v, ok := labels[k]; !ok || v != want {
			return false
		}
	}
	return true
}

// served judges a flow by where the caller's node may send it; nil if it is no
// Service's. The rule is that of the dataplane: where the pod calls, its egress
// policies judge all backends, and if they allow some, each is judged once the
// node has chosen: where it is, or where packets leave for it.
func (c *Cluster) served(src, dst End, pair Pair, f Flow) (*served, error) {
	var s *store.Service
	var to []Backend
	var err error
	c.Read(func(v store.View) {
		var port int
		if s, port, err = serving(v, src, dst, pair, f); err != nil || s == nil {
			return
		}
		for _, b := range backends(v, s, port) {
			if b.Addr().Is4() != pair.Dst.Is4() {
				continue
			}
			end, bad := addrEnd(v, b.Addr().String())
			if err = bad; err != nil {
				return
			}
			x := Backend{Addr: b, end: end}
			end.Name = "ip:" + b.Addr().String()
			if end.Pod != nil {
				x.Pod = end.Pod.Key().String()
				end.Name = x.Pod
			}
			x.end = end
			to = append(to, x)
		}
	})
	switch {
	case err != nil || s == nil:
		return nil, err
	case len(to) == 0 && dst.Service != nil:
		return nil, fmt.Errorf("Service %s: %s has no endpoints that serve it", s.Key(), f)
	case len(to) == 0:
		return nil, nil // judged as any other address
	}
	out := &served{name: s.Key().String(), backends: to}
	if err := out.call(c, src, pair, f); err != nil {
		return nil, err
	}
	return out, out.arrive(c, src, pair, f)
}

func (b *Backend) pair(p Pair) Pair { return Pair{p.Src, b.Addr.Addr()} }

func (b *Backend) flow(f Flow) Flow { return Flow{f.Protocol, b.Addr.Port()} }

// call judges where the pod calls.
func (s *served) call(c *Cluster, src End, pair Pair, f Flow) error {
	for i := range s.backends {
		b := &s.backends[i]
		d, err := c.Direction(rule.Egress, src, b.end, b.pair(pair), b.flow(f))
		if err != nil {
			return err
		}
		if i == 0 || d.Allowed && (s.open == 0 || d.Audit) {
			s.egress = d
		}
		if d.Allowed {
			s.open++
		}
	}
	return nil
}

// arrive judges each backend.
func (s *served) arrive(c *Cluster, src End, pair Pair, f Flow) error {
	reached := 0
	for i := range s.backends {
		b := &s.backends[i]
		d, err := c.Judge(src, b.end, b.pair(pair), b.flow(f))
		if err != nil {
			return err
		}
		b.Verdict, b.Audit, b.Reason = word(d.Allowed), d.Audit, d.Reason
		b.DecidedBy = append([]rule.PolicyRef{}, d.DecidedBy...)
		if d.Allowed {
			reached++
		}
	}
	switch reached {
	case 0:
		s.verdict = Deny
	case len(s.backends):
		s.verdict = Allow
	default:
		s.verdict = Some
	}
	return nil
}

// decidedBy names what decided about the backends that the verdict is about:
// of Some, those that can't be reached.
func (s *served) decidedBy() (refs []rule.PolicyRef, reason string, audit bool) {
	refs = []rule.PolicyRef{}
	for i := range s.backends {
		b := &s.backends[i]
		audit = audit || b.Audit
		if s.verdict == Some && b.Verdict == Allow {
			continue
		}
		for _, r := range b.DecidedBy {
			if !slices.Contains(refs, r) {
				refs = append(refs, r)
			}
		}
		if reason == "" {
			reason = b.Reason
		}
	}
	return refs, reason, audit
}

// walk walks to each backend.
func (s *served) walk(c *Cluster, src, dst End, pair Pair, f Flow) (*Trace, error) {
	t := &Trace{Src: src.Name, Dst: dst.Name, SrcAddr: pair.Src, DstAddr: pair.Dst, Proto: ProtocolName(f.Protocol), Port: f.Port,
		Verdict: s.verdict, Service: s.name, Egress: unjudged(src, "no policy is about it"), Ingress: unjudged(dst, "judged at each backend")}
	t.DecidedBy, t.Reason, t.Audit = s.decidedBy()
	if t.Egress.Judged = src.Judged(); t.Egress.Judged {
		t.Egress.Verdict, t.Egress.Audit = word(s.open > 0), s.egress.Audit
		t.Egress.Why = fmt.Sprintf("%d of %d backends are allowed", s.open, len(s.backends))
	}
	for i := range s.backends {
		b := &s.backends[i]
		x, err := c.walkPair(src, b.end, b.pair(pair), b.flow(f))
		if err != nil {
			return nil, err
		}
		x.Verdict, x.DecidedBy, x.Reason, x.Audit = b.Verdict, b.DecidedBy, b.Reason, b.Audit
		t.Backends = append(t.Backends, x)
	}
	return t, nil
}
