package resolve

import (
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// InForce takes the policies that have a say in one direction, in the order of
// judgement, apart: those in force, and those that would be if the staged ones
// were, or nil if these are the same.
func InForce(v store.View, policies []*policy.Policy, dir rule.Direction) (now, staged []*policy.Policy) {
	differ := false
	for _, p := range policies {
		if !Section(p, dir).Applies {
			continue
		}
		replaced := !p.Staged && v.Replaced(p.Origin)
		differ = differ || p.Staged || replaced
		if !p.Staged {
			now = append(now, p)
		}
		if !replaced {
			staged = append(staged, p)
		}
	}
	if !differ {
		return now, nil
	}
	if staged == nil {
		staged = []*policy.Policy{}
	}
	return now, staged
}
