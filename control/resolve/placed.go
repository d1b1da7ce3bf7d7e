package resolve

import (
	"fmt"
	"slices"

	"github.com/sluice-net/sluice/control/policy"
)

// placed is a peer that placeOf resolves, and who uses it.
type placed struct {
	peer  *policy.Peer
	spelt string // what it came down to
	users map[policy.Origin]struct{}
}

// placeOf resolves a peer for a policy, which is told by Renamed when the peer
// comes down to something else.
func (p *Peers) placeOf(user policy.Origin, q *policy.Peer) place {
	at := placeOf(p.view, &p.site, nil, q)
	key := placeKey(q)
	x := p.places[key]
	if x == nil {
		x = &placed{peer: q, spelt: at.spell(), users: map[policy.Origin]struct{}{}}
		p.places[key] = x
	}
	x.users[user] = struct{}{}
	return at
}

// replace looks what has become of places.
func (p *Peers) replace() {
	if !p.moved && !p.resets {
		return
	}
	for _, x := range p.places {
		again := p.moved
		if x.peer.Selector != nil {
			again = p.resets
		}
		if !again {
			continue
		}
		at := placeOf(p.view, &p.site, nil, x.peer)
		spelt := at.spell()
		if spelt == x.spelt {
			continue
		}
		x.spelt = spelt
		for user := range x.users {
			p.renamed[user] = struct{}{}
		}
	}
}

// placeKey tells places apart.
func placeKey(q *policy.Peer) string {
	switch {
	case q.Selector != nil:
		return "selector " + q.Selector.Key()
	case q.Endpoints != nil:
		return fmt.Sprintf("endpoints %+v", *q.Endpoints)
	case q.Group != nil:
		return fmt.Sprintf("group %+v", *q.Group)
	case q.Services != nil:
		return fmt.Sprintf("services %+v", *q.Services)
	}
	return fmt.Sprintf("zone %d %d", q.Zone, q.APIServer)
}

// spell writes a place out.
func (at *place) spell() string {
	var b []byte
	for _, s := range at.selectors {
		b = append(append(b, s.Key()...), 0)
	}
	blocks := make([]string, 0, len(at.blocks))
	for i := range at.blocks {
		blocks = append(blocks, blockKey(&at.blocks[i]))
	}
	slices.Sort(blocks)
	for _, s := range at.served {
		b = fmt.Appendf(b, "%v %v", s.port, s.addrs)
		if s.selector != nil {
			b = append(b, s.selector.Key()...)
		}
	}
	return fmt.Sprintf("%v %q %q %v", at.addrs, b, blocks, at.nets)
}
