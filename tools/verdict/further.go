package verdict

import (
	"fmt"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/text"
	"github.com/sluice-net/sluice/control/resolve"
)

// further judges what a rule asks beside peers and ports, and says what of it
// holds, or the first that doesn't.
func (m *matcher) further(r *policy.Rule) (bool, []string) {
	var held []string
	local := func(list []policy.Peer) int {
		for i := range list {
			if resolve.IsLocal(m.view, &list[i], m.subject, m.own) {
				return i
			}
		}
		return -1
	}
	for _, list := range r.Local {
		i := local(list)
		if i < 0 {
			return false, []string{"the pod itself is not " + peersText(list)}
		}
		held = append(held, "the pod itself is "+text.Peer(&list[i]))
	}
	if i := local(r.NotLocal); i >= 0 {
		return false, []string{"the pod itself is " + text.Peer(&r.NotLocal[i]) + ", which is left out"}
	}
	there := func(list []policy.Peer) (int, string) {
		for i := range list {
			if _, hit, why := m.peer(&list[i]); hit {
				return i, why
			}
		}
		return -1, ""
	}
	for _, list := range r.And {
		i, why := there(list)
		if i < 0 {
			return false, []string{fmt.Sprintf("%s is not also %s", m.addr, peersText(list))}
		}
		held = append(held, "also: "+why)
	}
	if i, why := there(r.Not); i >= 0 {
		return false, []string{"left out: " + why}
	}
	for _, port := range r.NotPorts {
		if resolve.PortMatches(m.dir, port, resolve.Caller(r, m.subject), resolve.Callers(r, m.ids), m.flow.Protocol, m.flow.Port) {
			return false, []string{fmt.Sprintf("port %s is in %s, which is left out", m.portText(), PortText(port))}
		}
	}
	return true, held
}

func peersText(list []policy.Peer) string {
	return strings.Join(text.Peers(list), " or ")
}
