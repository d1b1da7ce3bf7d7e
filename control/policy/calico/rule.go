package calico

import (
	"encoding/json"
	"net/netip"

	"github.com/sluice-net/sluice/control/policy"
)

// rule is a rule as it is written.
type rule struct {
	Action      string          `json:"action"`
	IPVersion   *int            `json:"ipVersion"`
	Protocol    json.RawMessage `json:"protocol"`
	NotProtocol json.RawMessage `json:"notProtocol"`
	ICMP        *icmp           `json:"icmp"`
	NotICMP     *icmp           `json:"notICMP"`
	Source      entity          `json:"source"`
	Destination entity          `json:"destination"`
	HTTP        json.RawMessage `json:"http"`
	Metadata    *struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`

	at              string
	proto, notProto policy.Protocol
	family          int // 4, 6, or 0 for both
}

type icmp struct {
	Type *int `json:"type"`
	Code *int `json:"code"`
}

// entity is what a rule asks of one end.
type entity struct {
	Nets              []string          `json:"nets"`
	NotNets           []string          `json:"notNets"`
	Selector          string            `json:"selector"`
	NotSelector       string            `json:"notSelector"`
	NamespaceSelector string            `json:"namespaceSelector"`
	Ports             []json.RawMessage `json:"ports"`
	NotPorts          []json.RawMessage `json:"notPorts"`
	ServiceAccounts   *struct {
		Names    []string `json:"names"`
		Selector string   `json:"selector"`
	} `json:"serviceAccounts"`
	Services *struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"services"`

	at              string
	nets, notNets   []netip.Prefix
	ports, notPorts []policy.Port
	pos, neg        *policy.Selector
}

var actions = map[string]policy.Action{"Allow": policy.Allow, "Deny": policy.Deny, "Pass": policy.Pass, "Log": policy.Next}

// everything is all addresses of a family.
var everything = map[int]netip.Prefix{4: netip.MustParsePrefix("0.0.0.0/0"), 6: netip.MustParsePrefix("::/0")}

// rules turns rules, which are valid, into those of the model.
func (r *reading) rules(_ string, list []*rule, egress bool) []policy.Rule {
	out := make([]policy.Rule, len(list))
	for i, rule := range list {
		out[i] = r.rule(rule, i, egress)
	}
	return out
}

func (r *reading) rule(in *rule, index int, egress bool) policy.Rule {
	out := policy.Rule{Index: index, Action: actions[in.Action], Log: in.Action == "Log"}
	remote, local := &in.Source, &in.Destination
	if egress {
		remote, local = local, remote
	}
	switch {
	case remote.pos != nil:
		out.Peers = []policy.Peer{{Selector: remote.pos}}
	case remote.Services != nil:
		ns := remote.Services.Namespace
		if ns == "" {
			ns = r.namespace
		}
		out.Peers = []policy.Peer{{Endpoints: &policy.Endpoints{Namespace: ns, Name: remote.Services.Name, OnPorts: egress}}}
	case len(remote.nets) > 0:
		out.Peers = blocks(remote.nets)
	default:
		out.AnyPeer = true
	}
	if len(remote.nets) > 0 && (remote.pos != nil || remote.Services != nil) {
		out.And = append(out.And, blocks(remote.nets))
	}
	if in.family != 0 && len(remote.nets) == 0 {
		out.And = append(out.And, []policy.Peer{{Block: &policy.Block{Prefix: everything[in.family]}}})
	}
	out.Not = blocks(remote.notNets)
	if remote.neg != nil {
		out.Not = append(out.Not, policy.Peer{Selector: remote.neg})
	}
	if local.pos != nil {
		out.Local = append(out.Local, []policy.Peer{{Selector: local.pos}})
	}
	if len(local.nets) > 0 {
		out.Local = append(out.Local, blocks(local.nets))
	}
	out.NotLocal = blocks(local.notNets)
	if local.neg != nil {
		out.NotLocal = append(out.NotLocal, policy.Peer{Selector: local.neg})
	}
	in.portsInto(&out)
	return out
}

func blocks(nets []netip.Prefix) []policy.Peer {
	var out []policy.Peer
	for _, n := range nets {
		out = append(out, policy.Peer{Block: &policy.Block{Prefix: n}})
	}
	return out
}

// portsInto adds protocols, ports and types of ICMP.
func (in *rule) portsInto(out *policy.Rule) {
	switch {
	case len(in.Destination.ports) > 0:
		out.Ports = in.Destination.ports
	case in.ICMP.asks():
		out.Ports = []policy.Port{in.ICMP.port(in.proto)}
	case in.proto != 0:
		out.Ports = []policy.Port{policy.AllPorts(in.proto)}
	default:
		out.AnyPort = true
	}
	out.NotPorts = in.Destination.notPorts
	if in.notProto != 0 {
		out.NotPorts = append(out.NotPorts, policy.AllPorts(in.notProto))
	}
	if in.NotICMP.asks() {
		out.NotPorts = append(out.NotPorts, in.NotICMP.port(in.proto))
	}
}

// asks reports whether a type of ICMP is given.
func (c *icmp) asks() bool { return c != nil && c.Type != nil }

func (c *icmp) port(p policy.Protocol) policy.Port {
	from := uint16(*c.Type) << 8
	if c.Code != nil {
		return policy.Port{Protocol: p, From: from | uint16(*c.Code), To: from | uint16(*c.Code)}
	}
	return policy.Port{Protocol: p, From: from, To: from | 0xff}
}
