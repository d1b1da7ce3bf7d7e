package rule

import "net/netip"

// Delta says how a Set differs from the one before it.
type Delta struct {
	Generation uint64
	// Bind binds addresses to identities, or binds them to others; it holds
	// indices into Identities as the Delta leaves them. Unbind is applied
	// before it.
	Bind   []Address
	Unbind []netip.Addr
	// Identities are appended to the Set's.
	Identities []Identity
	// Peers is the new number of peers if it is larger.
	Peers int
	// What is nil here stays as it was; everything else takes the place of
	// what the Set had. A Program whose Tiers are the very slice that they were
	// is taken for unchanged.
	Programs  []Program
	Endpoints []Endpoint
	Blocks    []Block
	Causes    []Cause
}

// Empty reports whether d changes no verdict and nothing of what is known of
// one.
func (d *Delta) Empty() bool {
	return len(d.Bind) == 0 && len(d.Unbind) == 0 && len(d.Identities) == 0 &&
		d.Programs == nil && d.Endpoints == nil && d.Blocks == nil && d.Causes == nil
}
