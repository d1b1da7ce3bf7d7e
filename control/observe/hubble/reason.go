package hubble

import (
	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// reasons says our reasons in Cilium's words; what has none of its own there is
// an invalid packet. The extension "reason" of a flow has our name.
var reasons = map[stat.Reason]flowpb.DropReason{
	stat.Truncated:        flowpb.DropReason_CT_TRUNCATED_OR_INVALID_HEADER,
	stat.Malformed:        flowpb.DropReason_INVALID_PACKET_DROPPED,
	stat.UnknownEtherType: flowpb.DropReason_UNSUPPORTED_L2_PROTOCOL,
	stat.VLAN:             flowpb.DropReason_VLAN_FILTERED,
	stat.BadFragment:      flowpb.DropReason_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND,
	stat.ExtensionHeaders: flowpb.DropReason_INVALID_IPV6_EXTENSION_HEADER,
	stat.SpoofedAddress:   flowpb.DropReason_INVALID_SOURCE_IP,
	stat.NeighbourSpoof:   flowpb.DropReason_FORBIDDEN_ICMPV6_MESSAGE,
	stat.InvalidState:     flowpb.DropReason_UNKNOWN_CONNECTION_TRACKING_STATE,
	stat.FlowTableFull:    flowpb.DropReason_CT_MAP_INSERTION_FAILED,
	stat.RateLimited:      flowpb.DropReason_DROP_RATE_LIMITED,
	stat.AgentDown:        flowpb.DropReason_DROP_HOST_NOT_READY,
	stat.UnknownEndpoint:  flowpb.DropReason_DROP_EP_NOT_READY,
	stat.NotReady:         flowpb.DropReason_DROP_EP_NOT_READY,
	stat.ICMPUnrelated:    flowpb.DropReason_UNKNOWN_CONNECTION_TRACKING_STATE,
}

// dropReason tells isolation, which no rule lifts, from a rule that denies.
func dropReason(f *observe.Flow) flowpb.DropReason {
	if f.Reason == stat.Policy {
		if f.Isolation() {
			return flowpb.DropReason_POLICY_DENIED
		}
		return flowpb.DropReason_POLICY_DENY
	}
	if r, ok := reasons[f.Reason]; ok {
		return r
	}
	return flowpb.DropReason_INVALID_PACKET_DROPPED
}
