package verdict

import (
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

var zoneTexts = []struct {
	zone policy.Zone
	text string
}{
	{policy.ZoneOwnNode, "the pod's own node"},
	{policy.ZoneOtherNodes, "another node"},
	{policy.ZoneWorldIPv4, "outside of the cluster by IPv4"},
	{policy.ZoneWorldIPv6, "outside of the cluster by IPv6"},
}

// PlaceText names a peer that is a zone, a group, Services or a name.
func PlaceText(p *policy.Peer) string {
	switch {
	case p.Group != nil && p.Group.Name != "":
		return "in the group " + p.Group.Name
	case p.Group != nil:
		return "in a group with " + requirementsText(p.Group.Labels)
	case p.Services != nil && p.Services.Name != "":
		return "behind a Service " + strings.TrimPrefix(p.Services.Namespace+"/"+p.Services.Name, "/")
	case p.Services != nil:
		return "behind a Service with " + requirementsText(p.Services.Labels)
	case p.Name != nil:
		return "an address of " + p.Name.String()
	}
	var zones []string
	for _, z := range zoneTexts {
		if p.Zone&z.zone != 0 {
			zones = append(zones, z.text)
		}
	}
	text := strings.Join(zones, " or ")
	switch {
	case p.APIServer == policy.Only && text == "":
		return "the API server"
	case p.APIServer == policy.Only:
		return "the API server as " + text
	case p.APIServer == policy.Except:
		return text + ", and not the API server"
	}
	return text
}
