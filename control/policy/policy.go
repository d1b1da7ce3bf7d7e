// Package policy is the neutral, ordered policy model that every policy
// language is turned into: tiers, in them policies by order, in them rules,
// and per tier a default for the pods that its policies select.
//
// A packet is judged in one direction by walking the tiers by Tier.Order; in a
// tier the policies that select the pod by Policy.Order, namespace and name;
// in a policy the rules as written. The first rule that matches decides. If
// none does, the tier's default holds: deny if any policy that selects the pod
// has Deny as its Default in this direction, pass otherwise. What no tier
// decides is allowed.
//
// Staged policies are left out of this. Beside it, the same walk is made as if
// they were enforced; what is allowed and would not be then is reported as an
// audit.
//
// Calico's order is the frame that the others fit into: a tier has the order
// that Calico gives to it, and Kubernetes' NetworkPolicies are at
// OrderNetworkPolicy in the tier that Calico calls default.
//
// A Rule is a conjunction: one of Peers, and one of each list of And, and none
// of Not, and one of Ports, and none of NotPorts, while the subject itself is
// one of each list of Local and none of NotLocal. A Peer is one set of
// addresses, so that "selector and CIDR and not other selector" is three peers
// in three places, and a limit to an IP version is a Block of all its
// addresses in And.
//
// All of it is plain data, immutable once handed on. Selectors are compiled
// when a front-end builds them and evaluated once per label set, never per
// packet.
package policy

import (
	"cmp"
	"math"
	"net/netip"
	"strings"
)

// Action is what a rule, or the default of a tier, says.
type Action uint8

const (
	Pass  Action = iota // leave it to the next tier
	Allow               // final
	Deny                // final
	Next                // of a rule: report it if Log is set, and go on with the next rule
)

// Tier is a place in the order of judgement.
type Tier struct {
	Name  string
	Order float64 // lower is judged first
}

// Compare orders tiers as they are judged: TierOwnNode and TierUnplaced first,
// those of equal Order by the names that Calico has for them.
func (t Tier) Compare(u Tier) int {
	if t == u {
		return 0
	}
	return cmp.Or(cmp.Compare(t.first(), u.first()), cmp.Compare(t.Order, u.Order), cmp.Compare(t.calico(), u.calico()), cmp.Compare(t.Name, u.Name))
}

func (t Tier) first() int {
	switch t {
	case TierOwnNode:
		return -2
	case TierUnplaced:
		return -1
	}
	return 0
}

// CalicoPrefix sets tiers of Calico's apart that are called as the model calls
// its own.
const CalicoPrefix = "calico/"

func (t Tier) calico() string {
	switch t.Name {
	case TierAdmin.Name:
		return "kube-admin"
	case TierNetworkPolicy.Name:
		return "default"
	case TierBaseline.Name:
		return "kube-baseline"
	}
	return strings.TrimPrefix(t.Name, CalicoPrefix)
}

// The tiers of Kubernetes' own languages, in the orders that Calico gives to
// them. TierNetworkPolicy is Calico's tier default.
var (
	TierAdmin         = Tier{Name: "admin", Order: 1000}
	TierNetworkPolicy = Tier{Name: "networkpolicy", Order: 1_000_000}
	TierBaseline      = Tier{Name: "baseline", Order: 10_000_000}
)

// NoOrder is the order of tiers and policies that give none: after all that do.
// LastOrder is that of tiers that policies name and nobody has: after these.
// Both are numbers that JSON can hold.
const (
	NoOrder   = 1e308
	LastOrder = math.MaxFloat64
)

// OrderUnplaced is the order of policies that close without saying legibly
// which it is: before all others of their tier.
const OrderUnplaced = -NoOrder

// OrderNetworkPolicy is the order of Kubernetes' NetworkPolicies in their tier.
const OrderNetworkPolicy = 1000

// TierOwnNode holds denials that hold for the node of the pod as well. A node
// reaches its own pods in spite of all other tiers, whatever orders these have.
var TierOwnNode = Tier{Name: "own-node", Order: -1}

// TierUnplaced is where policies close that don't say legibly which tier they
// are in: before all of them, but for the node of the pod.
var TierUnplaced = Tier{Name: "unplaced", Order: -1}

// Origin names the object that a policy was made from.
type Origin struct {
	Kind      string
	Namespace string // empty for cluster-scoped kinds
	Name      string
}

// String returns "Kind namespace/name", or "Kind name" without a namespace.
func (o Origin) String() string {
	if o.Namespace == "" {
		return o.Kind + " " + o.Name
	}
	return o.Kind + " " + o.Namespace + "/" + o.Name
}

// Compare orders by namespace, name and kind.
func (o Origin) Compare(p Origin) int {
	return cmp.Or(cmp.Compare(o.Namespace, p.Namespace),
		cmp.Compare(o.Name, p.Name), cmp.Compare(o.Kind, p.Kind))
}

// Policy is one object of one policy language.
type Policy struct {
	Origin Origin
	Tier   Tier
	// TierObject: the tier is an object of its own that Tier.Name names. The
	// store fills its order in, and Pass as the Default of Sections where the
	// tier says so.
	TierObject bool
	TierName   string  // what the object calls the tier, if it is not Tier.Name
	Order      float64 // within the tier: lower is judged first
	Tie        string  // orders policies of equal Order, before Origin does
	Subject    []*Selector
	Ingress    Section
	Egress     Section
	// Parts are the policies that the object consists of beside this one. Each
	// is judged by itself; all have the same Origin, and no Parts.
	Parts []*Policy
	// Lookups say which lookups teach names to peers that are names; without
	// any, no lookup does.
	Lookups []Lookup
	// Audit: what this policy would deny is reported and let through.
	Audit bool
	// Staged: the policy is judged beside those in force, and enforced never.
	Staged bool
	// Replaces, of a staged policy, names the policy in force whose next version
	// it is, and beside which it would not be.
	Replaces Origin
	// Rejected: the object is not valid; this policy only keeps closed what
	// the object would have closed. An earlier, valid version stays in force
	// beside it.
	Rejected bool
}

// Selects reports whether the policy's subject selects e.
func (p *Policy) Selects(e *Entity) bool {
	for _, s := range p.Subject {
		if s.Matches(e) {
			return true
		}
	}
	return false
}

// Compare orders policies as they are judged.
func (p *Policy) Compare(q *Policy) int {
	return cmp.Or(p.Tier.Compare(q.Tier),
		cmp.Compare(p.Order, q.Order), cmp.Compare(p.Tie, q.Tie), p.Origin.Compare(q.Origin))
}

// Section is what a policy says about one direction.
type Section struct {
	// Applies: the policy has a say in this direction. Rules and Default of a
	// Section that does not apply mean nothing.
	Applies bool
	Default Action // Deny isolates the selected pods; else Pass
	Rules   []Rule
}

// Rule is one line of a policy. It matches a packet if the remote end is any
// of Peers (or AnyPeer is set) and protocol and port are any of Ports (or
// AnyPort is set), and if the further lists hold: see the package's comment.
type Rule struct {
	Index   int    // in its list
	Path    string // of the list in the object, if it is not spec.ingress or spec.egress
	Action  Action
	Log     bool
	AnyPeer bool
	AnyPort bool
	Peers   []Peer
	Ports   []Port

	And      [][]Peer
	Not      []Peer
	NotPorts []Port
	Local    [][]Peer // of the subject
	NotLocal []Peer   // of the subject
}

// Peer is one set of remote ends: exactly one of its fields is set.
type Peer struct {
	Selector *Selector // pods or nodes by their labels
	Block    *Block    // addresses, whoever has them
	Domain   string    // addresses that a name resolves to; "*.a.b" any name below

	// Zone, APIServer: what is no pod. Only the API server, wherever it is, if
	// Zone is 0 and APIServer is Only.
	Zone      Zone
	APIServer Membership
	Group     *Group       // addresses of groups of CIDRs
	Services  *ServicePods // what Services lead to
	Name      *Name        // addresses of names that no pod and no node has
	Endpoints *Endpoints   // the endpoints of one Service, whoever has their addresses
}

// Block is a CIDR and what is left out of it.
type Block struct {
	Prefix netip.Prefix // masked
	Except []netip.Prefix
	// Unmanaged: only addresses that no pod and no node has.
	Unmanaged bool
}

// Contains reports whether a is inside the block, whoever has it.
func (b *Block) Contains(a netip.Addr) bool {
	if !b.Prefix.Contains(a) {
		return false
	}
	for _, x := range b.Except {
		if x.Contains(a) {
			return false
		}
	}
	return true
}

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that policies know by name.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// Port matches a protocol and either an inclusive range of destination ports
// or, if Name is set, the port that the destination pod calls so. Protocol 0
// with a Name means any protocol.
type Port struct {
	Protocol Protocol
	From, To uint16
	Name     string
}

// AllPorts returns the Port that matches all of a protocol.
func AllPorts(p Protocol) Port { return Port{Protocol: p, To: 65535} }

// UnknownField is why a field is rejected that its kind doesn't have.
const UnknownField = "unknown field"

// Rejection is an object, or a field of one, that is not in force as written.
type Rejection struct {
	Object string // Kind namespace/name
	Source string // where it came from
	Field  string
	Reason string
	Effect string // what holds instead
}
