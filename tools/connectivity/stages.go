package connectivity

// stage is a set of policies and what they deny.
type stage struct {
	name     string
	policies map[string]string // NetworkPolicies' specs, by name
	denied   map[string][]Dest // by who calls; all else is allowed
}

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
		"- to: [{ipBlock: {cidr: 10.96.7.1/32}}, {ipBlock: {cidr: 'fd00:96:7::1/128'}}]\n  ports: [{port: 80, protocol: TCP}]\n"
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
