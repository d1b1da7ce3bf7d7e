package cilium

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// spec is one rule of Cilium's API, as read.
type spec struct {
	at              string
	subject, node   *selector
	ingress, egress direction
}

// direction is what a spec says about one direction.
type direction struct {
	named       bool // the spec has one of the two lists, if empty
	denies      bool // it has that of denials
	allow, deny []entry
	defaultDeny *bool
}

// entry is one element of ingress, ingressDeny, egress or egressDeny.
type entry struct {
	at      string
	index   int
	peers   peers
	ports   []portRule // of toPorts and icmps
	ported  bool       // any of both has an element
	egress  bool
	denying bool
}

// object reads the specs of an object, faulty ones too.
func (r *reading) object(np *NetworkPolicy) []spec {
	if np.Name == "" {
		r.fault("metadata.name", "Required value: name or generateName is required")
	}
	for _, msg := range validation.IsDNS1123Subdomain(np.Name) {
		if np.Name != "" {
			r.fault("metadata.name", "Invalid value: %q: %s", np.Name, msg)
		}
	}
	var out []spec
	if given(np.Spec) {
		n, ok := r.root("spec", np.Spec)
		out = append(out, r.spec(n, ok))
	}
	if given(np.Specs) {
		n, _ := r.root("specs", np.Specs)
		list := n.list()
		if list == nil {
			out = append(out, r.spec(n, false))
		}
		for _, e := range list {
			out = append(out, r.spec(e, true))
		}
	}
	if !given(np.Spec) && !given(np.Specs) {
		r.fault("spec", "Required value: spec or specs must be provided")
	}
	return out
}

func given(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// spec reads one spec. What is illegible names both directions.
func (r *reading) spec(n node, legible bool) spec {
	s := spec{at: n.at}
	var f map[string]node
	if legible {
		f, legible = n.object("endpointSelector", "nodeSelector", "ingress", "ingressDeny", "egress", "egressDeny",
			"labels", "enableDefaultDeny", "description", "log")
	}
	if !legible {
		s.ingress.named, s.egress.named = true, true
		return s
	}
	r.readSubject(&s, f)
	r.readDirection(&s.ingress, f, "ingress", "ingressDeny")
	r.readDirection(&s.egress, f, "egress", "egressDeny")
	if n, ok := f["enableDefaultDeny"]; ok {
		d, _ := n.object("ingress", "egress")
		if b, ok := d["ingress"]; ok {
			s.ingress.defaultDeny = b.bool()
		}
		if b, ok := d["egress"]; ok {
			s.egress.defaultDeny = b.bool()
		}
	}
	if n, ok := f["description"]; ok {
		n.string()
	}
	if n, ok := f["log"]; ok {
		r.readLog(n)
	}
	if len(s.ingress.allow)+len(s.ingress.deny)+len(s.egress.allow)+len(s.egress.deny) == 0 {
		r.fault(s.at, "Required value: must have at least one of ingress, ingressDeny, egress, egressDeny")
	}
	return s
}

func (r *reading) readSubject(s *spec, f map[string]node) {
	es, hasES := f["endpointSelector"]
	ns, hasNS := f["nodeSelector"]
	switch {
	case !hasES && !hasNS:
		r.fault(s.at, "Required value: must have one of endpointSelector and nodeSelector")
	case hasES && hasNS:
		r.fault(s.at+".nodeSelector", "Forbidden: may not be specified beside endpointSelector")
	case hasNS && r.namespace != "":
		r.fault(ns.at, "Forbidden: only a CiliumClusterwideNetworkPolicy can have it")
	case hasNS:
		s.node = r.readSelector(ns)
		r.notes = append(r.notes, fault{ns.at, "selects nodes, and host policies are not enforced, as with Cilium's host firewall at its default"})
		return
	}
	if hasES {
		s.subject = r.readSelector(es)
	}
}

func (r *reading) readDirection(d *direction, f map[string]node, allow, deny string) {
	egress := allow == "egress"
	if n, ok := f[allow]; ok {
		d.named = true
		for i, e := range n.list() {
			d.allow = append(d.allow, r.entry(e, i, egress, false))
		}
	}
	if n, ok := f[deny]; ok {
		d.named, d.denies = true, true
		list := n.list()
		if list == nil { // whatever it was to deny
			d.deny = []entry{{at: n.at, index: isolation}}
		}
		for i, e := range list {
			d.deny = append(d.deny, r.entry(e, i, egress, true))
		}
	}
}

// maxLog is the most characters of log.value, by the CRD.
const maxLog = 32

func (r *reading) readLog(n node) {
	f, _ := n.object("value")
	if v, ok := f["value"]; ok && len([]rune(v.string())) > maxLog {
		r.fault(v.at, "Too long: may not be more than %d characters", maxLog)
	}
}

// entry reads one element of a direction.
func (r *reading) entry(n node, index int, egress, deny bool) entry {
	e := entry{at: n.at, index: index, egress: egress, denying: deny}
	known := []string{"toPorts", "icmps"}
	for k, name := range peerFields(egress) {
		if name != "" && !(deny && k == kindFQDNs) {
			known = append(known, name)
		}
	}
	if !deny {
		known = append(known, "authentication")
	}
	known = append(known, requiresField(egress))
	f, ok := n.object(known...)
	if !ok {
		return e
	}
	if n, ok := f[requiresField(egress)]; ok && len(n.list()) > 0 {
		r.fault(n.at, "Forbidden: no longer supported by Cilium")
	}
	if n, ok := f["authentication"]; ok {
		r.readAuthentication(n)
	}
	e.peers = r.readPeers(f, egress)
	toPorts, icmps := f["toPorts"], f["icmps"]
	nPorts, nICMP := 0, 0
	if toPorts.v != nil {
		ports := toPorts.list()
		nPorts = len(ports)
		for _, p := range ports {
			e.ports = append(e.ports, r.readPortRule(p, egress, deny))
		}
	}
	if icmps.v != nil {
		list := icmps.list()
		nICMP = len(list)
		for _, p := range list {
			e.ports = append(e.ports, r.readICMP(p))
		}
	}
	if nPorts > 0 && nICMP > 0 {
		r.fault(icmps.at, "Forbidden: may only be present without toPorts: define a separate rule")
	}
	e.ported = nPorts+nICMP > 0
	return e
}

func requiresField(egress bool) string {
	if egress {
		return "toRequires"
	}
	return "fromRequires"
}

func (r *reading) readAuthentication(n node) {
	f, _ := n.object("mode")
	mode, ok := f["mode"]
	if !ok {
		r.fault(n.at+".mode", "Required value")
		return
	}
	switch m := mode.string(); m {
	case "disabled":
	case "required", "test-always-fail":
		r.fault(mode.at, "mutual authentication is not supported: %q", m)
	default:
		r.fault(mode.at, "Unsupported value: %q: supported values: \"disabled\"", m)
	}
}

// isolation is the index of an entry that is none of the user's.
const isolation = -1

// path says where in its object an entry stands, without its index.
func (e *entry) path() string { return strings.TrimSuffix(e.at, fmt.Sprintf("[%d]", e.index)) }
