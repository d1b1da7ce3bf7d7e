package policy

import (
	"net/netip"
	"regexp"
	"strings"
)

// Zone is a set of kinds of remote ends that are no pods.
type Zone uint8

const (
	ZoneOwnNode    Zone = 1 << iota // the node that the subject runs on
	ZoneOtherNodes                  // all other nodes
	ZoneWorldIPv4                   // IPv4 addresses that no pod and no node has
	ZoneWorldIPv6                   // the same for IPv6
)

// Membership says whether the API server's addresses are meant.
type Membership uint8

const (
	Whether Membership = iota // or not
	Only                      // them and nothing else
	Except                    // all but them
)

// Group stands for the addresses of named groups of CIDRs that no pod and no
// node has: of one group by its name, or of all groups whose labels match.
type Group struct {
	Name   string
	Labels []Requirement  // if Name is empty; none match every group
	Except []netip.Prefix // masked
}

// ServicePods stands for what Services lead to: the pods that their selectors
// select, and for those without a selector the addresses of their endpoints
// that no pod and no node has.
type ServicePods struct {
	Namespace string        // empty: any
	Name      string        // empty: those whose labels match
	Labels    []Requirement // if Name is empty
}

// Endpoints stands for the endpoints of one Service, as its EndpointSlices list
// them. Without EndpointSlices they are the pods that the Service selects.
type Endpoints struct {
	Namespace, Name string
	OnPorts         bool // each only on the ports that it serves
}

// Name is a domain name, or a pattern of such names.
type Name struct {
	text    string
	matcher *regexp.Regexp
}

// NewName returns what matches names, in lower case and with their final dots,
// by a regular expression. text is what the user wrote; it identifies the
// expression.
func NewName(text, expression string) Name {
	return Name{text, regexp.MustCompile(expression)}
}

// String returns what the user wrote.
func (n Name) String() string { return n.text }

// Key identifies what the Name matches.
func (n Name) Key() string { return n.matcher.String() }

// Matches reports whether a name is meant. Case and a final dot don't matter.
func (n Name) Matches(name string) bool {
	return n.matcher.MatchString(strings.ToLower(strings.TrimSuffix(name, ".")) + ".")
}

// Lookup says which lookups of the selected pods teach names: those of any of
// Names, of a resolver that is any of Peers (or AnyPeer is set).
type Lookup struct {
	Names   []Name
	AnyPeer bool
	Peers   []Peer
}
