package text

import (
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

var zones = []struct {
	zone policy.Zone
	text string
}{
	{policy.ZoneOwnNode, "the pod's own node"},
	{policy.ZoneOtherNodes, "another node"},
	{policy.ZoneWorldIPv4, "outside of the cluster by IPv4"},
	{policy.ZoneWorldIPv6, "outside of the cluster by IPv6"},
}

// Place describes a peer that is neither a block nor a domain.
func Place(p *policy.Peer) string {
	switch {
	case p.Selector != nil:
		return "among " + Selector(p.Selector)
	case p.Endpoints != nil:
		return "an endpoint of the Service " + p.Endpoints.Namespace + "/" + p.Endpoints.Name
	case p.Group != nil && p.Group.Name != "":
		return "in the group " + p.Group.Name
	case p.Group != nil:
		return "in a group with " + Requirements(p.Group.Labels)
	case p.Services != nil && p.Services.Name != "":
		return "behind a Service " + strings.TrimPrefix(p.Services.Namespace+"/"+p.Services.Name, "/")
	case p.Services != nil:
		return "behind a Service with " + Requirements(p.Services.Labels)
	case p.Endpoints != nil:
		return "an endpoint of the Service " + p.Endpoints.Namespace + "/" + p.Endpoints.Name
	case p.Name != nil:
		return "an address of " + p.Name.String()
	}
	var in []string
	for _, z := range zones {
		if p.Zone&z.zone != 0 {
			in = append(in, z.text)
		}
	}
	text := strings.Join(in, " or ")
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
