package compile

import (
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// users knows which subjects a peer or a policy concerns.
type users struct {
	ofPeer   map[rule.PeerID]map[*subject]struct{}
	ofPolicy map[policy.Origin]map[*subject]struct{}
}

func newUsers() users {
	return users{ofPeer: map[rule.PeerID]map[*subject]struct{}{}, ofPolicy: map[policy.Origin]map[*subject]struct{}{}}
}

func (u *users) add(s *subject) {
	s.eachPeer(func(id rule.PeerID) { join(u.ofPeer, id, s) })
	for _, p := range s.policies {
		join(u.ofPolicy, p.Origin, s)
	}
}

func (u *users) remove(s *subject) {
	s.eachPeer(func(id rule.PeerID) { leave(u.ofPeer, id, s) })
	for _, p := range s.policies {
		leave(u.ofPolicy, p.Origin, s)
	}
}

func (s *subject) eachPeer(visit func(rule.PeerID)) {
	for d := range s.body {
		s.body[d].EachRule(func(r *rule.Rule) { r.EachPeer(visit) })
	}
}

func join[K comparable](m map[K]map[*subject]struct{}, k K, s *subject) {
	if m[k] == nil {
		m[k] = map[*subject]struct{}{}
	}
	m[k][s] = struct{}{}
}

func leave[K comparable](m map[K]map[*subject]struct{}, k K, s *subject) {
	if delete(m[k], s); len(m[k]) == 0 {
		delete(m, k)
	}
}
