// Package rule is the seam between control and dataplane: compiled policy as
// plain data. Control builds a Set; the dataplane turns it into a classifier
// and enforces it. Nothing here knows Kubernetes, packets or sockets.
//
// A Set answers, for a local endpoint, a direction, a remote address, a
// protocol and a port: allow or deny, and because of which policy. The answer
// is found by walking the endpoint's Program for the direction:
//
//	for each tier in order:
//	    for each rule in order: the first that matches, and is not Next, decides
//	        Allow, Deny: final
//	        Pass:        go to the next tier
//	        Next:        go to the next rule; its Log counts
//	    no rule matched: the tier's Default (Allow, Deny or Pass)
//	no tier decided: allow
//
// A Program may hold a second list of tiers, Staged, walked the same way. It
// changes no verdict but this: what Tiers allow, without an audit, and Staged
// deny is allowed as an audit, because of what denied it in Staged.
//
// A Set and everything that it refers to is immutable once published.
package rule

import (
	"net/netip"

	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// Action is what a rule or the default of a tier says.
type Action uint8

const (
	Pass  Action = iota // leave it to the next tier
	Allow               // final
	Deny                // final
	Next                // of a rule only: go on with the next one
)

// String returns the lower-case name of the action.
func (a Action) String() string {
	switch a {
	case Pass:
		return "pass"
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case Next:
		return "next"
	}
	return "invalid"
}

// Direction is seen from the local endpoint.
type Direction uint8

const (
	Ingress Direction = iota // towards the endpoint
	Egress                   // away from the endpoint
)

// String returns "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// PeerID names one set of remote addresses: what one selector, or one CIDR
// with its exceptions, matches. IDs are dense, 0 to Set.Peers-1.
type PeerID uint32

// ProgramID indexes Set.Programs.
type ProgramID uint32

// CauseID names a Cause. It is stable across the Sets of one compiler: the
// same policy, rule and direction keep their CauseID for as long as they live.
// NoCause stands for "no policy had a say".
type CauseID uint32

// NoCause is the CauseID of a verdict that no policy gave.
const NoCause CauseID = 0

// AnyProto as a protocol matches all of them, ICMP and unknown ones included.
const AnyProto uint8 = 0

// PortRange matches a protocol and, for protocols that have ports, an
// inclusive range of destination ports. For ICMP and ICMPv6 the "port" is
// type<<8|code. Proto == AnyProto matches all protocols and ports.
type PortRange struct {
	Proto    uint8 // IP protocol number
	From, To uint16
}

// Rule is one line of a tier. It matches if the remote address is in any of
// Peers (or AnyPeer is set), in any peer of each list of And, and in none of
// Not, and if the packet is in any of Ports (or AnyPort is set) and in none of
// NotPorts. An empty Peers without AnyPeer matches nothing, and so do an empty
// list in And, and empty Ports without AnyPort.
type Rule struct {
	Action  Action
	Log     bool // report each new flow that this rule matches
	Audit   bool // a Deny is reported but not enforced: judged on as Allow
	AnyPeer bool
	AnyPort bool
	Peers   []PeerID // sorted, unique
	Ports   []PortRange
	Cause   CauseID

	And      [][]PeerID // each sorted, unique
	Not      []PeerID   // sorted, unique
	NotPorts []PortRange
}

// EachPeer calls visit with every peer that the rule refers to, in no order;
// one may come more than once.
func (r *Rule) EachPeer(visit func(PeerID)) {
	for _, p := range r.Peers {
		visit(p)
	}
	for _, list := range r.And {
		for _, p := range list {
			visit(p)
		}
	}
	for _, p := range r.Not {
		visit(p)
	}
}

// Tier is an ordered list of rules and what holds if none of them matches.
type Tier struct {
	Name         string
	Rules        []Rule
	Default      Action
	DefaultAudit bool // as Rule.Audit, for the Default
	DefaultCause CauseID
}

// Program is all that is judged for one endpoint in one direction. Endpoints
// with equal rules share one Program. A Program without tiers allows all.
type Program struct {
	Tiers  []Tier
	Staged []Tier // what would be judged if staged policies were enforced; nil if there are none
}

// EachRule calls visit with every rule of Tiers and Staged, in order.
func (p *Program) EachRule(visit func(*Rule)) {
	for _, tiers := range [2][]Tier{p.Tiers, p.Staged} {
		for t := range tiers {
			for i := range tiers[t].Rules {
				visit(&tiers[t].Rules[i])
			}
		}
	}
}

// Endpoint binds a local endpoint to its programs.
type Endpoint struct {
	ID              endpoint.ID
	Ingress, Egress ProgramID
	// Generation changes whenever the verdict of any packet of this endpoint
	// may have changed: its rules, or who its peers are. Never 0.
	Generation uint32
}

// Identity is a set of peers that addresses have in common: for pods, the
// selectors that match their namespace and labels.
type Identity []PeerID // sorted, unique

// Address binds one remote address (a pod's, or a node's) to an Identity.
// Addresses that are bound to no identity match Blocks only.
type Address struct {
	Addr     netip.Addr // unmapped
	Identity uint32     // index into Set.Identities
}

// Block is one CIDR with its exceptions. It matches every address inside
// Prefix and outside all of Except, whether bound to an identity or not,
// unless Unbound is set: then only addresses that no identity is bound to.
type Block struct {
	Peer    PeerID
	Prefix  netip.Prefix // masked
	Except  []netip.Prefix
	Unbound bool
}

// Set is a complete compiled policy for one node.
type Set struct {
	Generation uint64 // increases with each Set that a compiler emits
	Peers      int    // number of PeerIDs in use
	Programs   []Program
	Endpoints  []Endpoint // sorted by ID
	Identities []Identity
	Addresses  []Address // sorted by Addr, unique
	Blocks     []Block   // several Blocks may share a Peer: the union
	Causes     []Cause   // indexed by CauseID; [0] is the empty cause
}

// Cause says which policy, or which policies together, gave a verdict.
type Cause struct {
	// Refs has one entry for a rule; for a default deny, one for each policy
	// that isolates the endpoint in this direction.
	Refs []PolicyRef
	// Text is the reason where no policy is the cause ("own node").
	Text string
}

// DefaultRule as PolicyRef.Rule says that no rule of the policy matched and
// the policy's isolation decided.
const DefaultRule = -1

// PolicyRef names one rule of one policy, as its user wrote it.
type PolicyRef struct {
	Kind      string    `json:"kind"`
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Rule      int       `json:"rule"` // index in spec.ingress or spec.egress, or DefaultRule
	Direction Direction `json:"direction"`
	Tier      string    `json:"tier,omitempty"`
	// Path is the list in the object that has the rule, if it is another than
	// spec.ingress or spec.egress.
	Path string `json:"path,omitempty"`
}

// MarshalText renders the direction by name, for JSON and YAML.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText accepts "ingress" and "egress".
func (d *Direction) UnmarshalText(b []byte) error {
	switch string(b) {
	case "ingress":
		*d = Ingress
	case "egress":
		*d = Egress
	default:
		return &DirectionError{Text: string(b)}
	}
	return nil
}

// DirectionError reports a direction that is neither ingress nor egress.
type DirectionError struct{ Text string }

func (e *DirectionError) Error() string {
	return "direction " + e.Text + ": want ingress or egress"
}
