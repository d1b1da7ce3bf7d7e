package connectivity

import (
	"fmt"
	"net/netip"
	"strings"
)

// stage is a set of policies and what they deny.
type stage struct {
	name     string
	policies map[string]string // NetworkPolicies' specs, by name
	denied   map[string][]Dest // by who calls; all else is allowed
}

// serviceBlocks stands for the Service's addresses, as peers of a rule.
const serviceBlocks = "SERVICE"

const (
	closeServer = "podSelector: {matchLabels: {name: server}}\npolicyTypes: [Ingress]\n"
	letClientIn = "podSelector: {matchLabels: {name: server}}\npolicyTypes: [Ingress]\n" +
		"ingress:\n- from: [{podSelector: {matchLabels: {name: client}}}]\n  ports: [{port: 8080, protocol: TCP}]\n"
	closeClient = "podSelector: {matchLabels: {name: client}}\npolicyTypes: [Egress]\n"
	askDNS      = "podSelector: {matchLabels: {name: client}}\npolicyTypes: [Egress]\n" +
		"egress:\n- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]\n"
	callServer = "podSelector: {matchLabels: {name: client}}\npolicyTypes: [Egress]\n" +
		"egress:\n- to: [{podSelector: {matchLabels: {name: server}}}]\n  ports: [{port: 8080, protocol: TCP}]\n" +
		// A Service's address is judged as any other, before the host translates it.
		"- to: [" + serviceBlocks + "]\n  ports: [{port: 80, protocol: TCP}]\n"
	callAnyone = "podSelector: {matchLabels: {name: client}}\npolicyTypes: [Egress]\n" +
		"egress:\n- to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]\n"
)

// stages are tried in this order; the last one sees that nothing stays behind.
var stages = []stage{
	{name: "no policies"},
	{
		name: "ingress of the server is closed", policies: map[string]string{"close-server": closeServer},
		denied: map[string][]Dest{Client: {Pod, Service}, Other: {Pod, Service}},
	},
	{
		name: "the client is let in", policies: map[string]string{"close-server": closeServer, "let-client-in": letClientIn},
		denied: map[string][]Dest{Other: {Pod, Service}},
	},
	{
		name: "egress of the client is closed", policies: map[string]string{"close-client": closeClient},
		denied: map[string][]Dest{Client: {Pod, Service, Node, World, DNS}},
	},
	{
		name: "the client may ask DNS", policies: map[string]string{"close-client": closeClient, "ask-dns": askDNS},
		denied: map[string][]Dest{Client: {Pod, Service, Node, World}},
	},
	{
		name: "the client may call addresses", policies: map[string]string{"close-client": closeClient, "call-anyone": callAnyone},
	},
	{
		name: "the client may call the server, which lets it in",
		policies: map[string]string{
			"close-client": closeClient, "call-server": callServer, "close-server": closeServer, "let-client-in": letClientIn,
		},
		denied: map[string][]Dest{Client: {Node, World, DNS}, Other: {Pod, Service}},
	},
	{name: "policies removed"},
}

// Stages lists the names of all stages.
func Stages() []string {
	var names []string
	for _, s := range stages {
		names = append(names, s.name)
	}
	return names
}

// Manifest spells a NetworkPolicy of a stage out, for a Service with these
// addresses.
func Manifest(namespace, name, spec string, service []netip.Addr) string {
	var blocks []string
	for _, a := range service {
		blocks = append(blocks, fmt.Sprintf("{ipBlock: {cidr: '%s/%d'}}", a, a.BitLen()))
	}
	spec = strings.ReplaceAll(strings.TrimSpace(spec), serviceBlocks, strings.Join(blocks, ", "))
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: %s}\nspec:\n  %s\n",
		name, namespace, strings.ReplaceAll(spec, "\n", "\n  "))
}
