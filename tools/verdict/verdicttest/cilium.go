package verdicttest

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Object is what somebody writes, as JSON has it.
type Object = map[string]any

type list = []any

// The world that Cilium's policies are tried in. Pod i of CiliumPods has the
// addresses 10.0.0.i+1 and fd00::i+1.
var (
	CiliumNamespaces = map[string]map[string]string{"a": {"team": "red"}, "b": {"team": "blue"}}
	CiliumPods       = []CiliumPod{
		{"a", "p0", "n1", map[string]string{"app": "x"}, "default"},
		{"a", "p1", "n1", map[string]string{"app": "y", "pod-template-hash": "1"}, "robot"},
		{"a", "p2", "n2", nil, "default"},
		{"b", "p3", "n1", map[string]string{"app": "x"}, "robot"},
		{"b", "p4", "n2", map[string]string{"app": "y"}, "default"},
	}
	// CiliumNodes are the nodes' addresses; APIServer is one of them.
	CiliumNodes     = map[string]string{"n1": "192.168.0.1", "n2": "192.168.0.2", "n3": "192.168.0.3"}
	CiliumAPIServer = "192.168.0.3"
	// CiliumWorld are addresses that nobody manages, and the names that resolve
	// to them.
	CiliumWorld = map[string]string{"192.0.2.1": "web.test", "198.51.100.9": "x.any.test", "203.0.113.7": "x.y.any.test", "2001:db8::1": "web6.test"}
	// CiliumGroups are CiliumCIDRGroups, and CiliumGroupLabels their labels.
	CiliumGroups      = map[string][]string{"g1": {"198.51.100.0/24", "10.0.0.0/24"}, "g2": {"203.0.113.7/32", "2001:db8::/32"}}
	CiliumGroupLabels = map[string]map[string]string{"g1": {"zone": "q"}, "g2": nil}
)

// CiliumPod is a pod. All call TCP 80 "http".
type CiliumPod struct {
	Namespace, Name, Node string
	Labels                map[string]string
	Account               string
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// some returns up to n of what f makes.
func some(r *rand.Rand, n int, f func() any) list {
	out := list{}
	for range r.IntN(n + 1) {
		out = append(out, f())
	}
	return out
}

// RandomCilium returns a CiliumNetworkPolicy or, without a namespace, a
// CiliumClusterwideNetworkPolicy. Some are not valid.
func RandomCilium(r *rand.Rand, name string) Object {
	o := Object{"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "metadata": Object{"name": name}}
	if r.IntN(3) > 0 {
		o["kind"] = "CiliumNetworkPolicy"
		o["metadata"] = Object{"name": name, "namespace": one(r, "a", "b")}
	}
	switch r.IntN(8) {
	case 0:
		o["specs"] = list{ciliumSpec(r), ciliumSpec(r)}
	case 1:
		o["spec"], o["specs"] = ciliumSpec(r), list{ciliumSpec(r)}
	default:
		o["spec"] = ciliumSpec(r)
	}
	return o
}

func ciliumSpec(r *rand.Rand) Object {
	s := Object{"endpointSelector": ciliumSelector(r, true)}
	for _, dir := range []string{"ingress", "egress"} {
		if r.IntN(3) > 0 {
			s[dir] = ciliumEntries(r, dir == "egress", false)
		}
		if r.IntN(4) == 0 {
			s[dir+"Deny"] = ciliumEntries(r, dir == "egress", true)
		}
	}
	if r.IntN(5) == 0 {
		s["enableDefaultDeny"] = one(r, Object{}, Object{"ingress": false}, Object{"egress": false}, Object{"ingress": true, "egress": false})
	}
	switch r.IntN(40) {
	case 0:
		delete(s, "endpointSelector")
	case 1:
		s["nodeSelector"] = Object{}
	case 2:
		s["description"] = "any"
	}
	return s
}

func ciliumEntries(r *rand.Rand, egress, deny bool) list {
	switch r.IntN(10) {
	case 0:
		return list{}
	case 1:
		return list{Object{}}
	}
	out := list{ciliumEntry(r, egress, deny)}
	if r.IntN(3) == 0 {
		out = append(out, ciliumEntry(r, egress, deny))
	}
	return out
}

func ciliumEntry(r *rand.Rand, egress, deny bool) Object {
	e := Object{}
	side := "from"
	if egress {
		side = "to"
	}
	for range one(r, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2) {
		switch r.IntN(9) {
		case 0, 1, 2:
			e[side+"Endpoints"] = some(r, 2, func() any { return ciliumSelector(r, false) })
		case 3:
			e[side+"Entities"] = some(r, 2, func() any {
				return one(r, "all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "kube-apiserver", "init", "unmanaged", "health", "ingress", "none")
			})
		case 4:
			e[side+"CIDR"] = some(r, 2, func() any { return ciliumCIDR(r) })
		case 5, 6:
			e[side+"CIDRSet"] = some(r, 2, func() any { return ciliumCIDRRule(r) })
		case 7:
			if egress {
				e["toFQDNs"] = some(r, 2, func() any { return ciliumName(r) })
			}
		case 8:
			switch r.IntN(6) {
			case 0:
				e[side+"Requires"] = some(r, 1, func() any { return ciliumSelector(r, false) })
			case 1:
				e[side+"Nodes"] = some(r, 1, func() any { return Object{} })
			case 2:
				e["authentication"] = Object{"mode": "disabled"}
			}
		}
	}
	if r.IntN(2) == 0 {
		e["toPorts"] = some(r, 2, func() any { return ciliumPorts(r, egress, deny) })
	}
	if _, ports := e["toPorts"]; r.IntN(8) == 0 && (!ports || r.IntN(4) == 0) {
		e["icmps"] = some(r, 2, func() any {
			return one(r, Object{}, Object{"fields": list{Object{"type": 8}}}, Object{"fields": list{Object{"family": "IPv6", "type": "EchoRequest"}, Object{"type": 0}}})
		})
	}
	return e
}

func ciliumPorts(r *rand.Rand, egress, deny bool) Object {
	p := Object{}
	if r.IntN(8) > 0 {
		p["ports"] = some(r, 2, func() any {
			x := Object{"port": one(r, "80", "80", "53", "0", "http", "8080", "HTTP", "0x50", "70000", "")}
			if r.IntN(3) > 0 {
				x["protocol"] = one(r, "TCP", "TCP", "UDP", "ANY", "SCTP", "tcp")
			}
			if r.IntN(6) == 0 {
				x["endPort"] = one(r, 81, 100, 8080, 0, 40)
			}
			return x
		})
	}
	if !deny && r.IntN(12) == 0 {
		p["rules"] = one(r, Object{}, Object{"dns": list{Object{"matchPattern": "*"}}}, Object{"dns": list{}}, Object{"http": list{}})
	}
	return p
}

func ciliumName(r *rand.Rand) Object {
	if r.IntN(2) == 0 {
		return Object{"matchName": one(r, "web.test", "Web6.Test", "web.test.", "other.test", "bad name", "")}
	}
	return Object{"matchPattern": one(r, "*", "*.any.test", "**.any.test", "w*.test", "*.test", "x.*.any.test", "b?d")}
}

func ciliumCIDR(r *rand.Rand) string {
	return one(r, "0.0.0.0/0", "::/0", "10.0.0.0/24", "192.0.2.0/24", "192.0.2.1/32", "192.0.2.1", "192.168.0.0/24", "198.51.100.0/24", "2001:db8::/32", "1.2.3/8")
}

func ciliumCIDRRule(r *rand.Rand) Object {
	o := Object{}
	switch r.IntN(5) {
	case 0:
		o["cidrGroupRef"] = one(r, "g1", "g2", "unknown")
	case 1:
		o["cidrGroupSelector"] = one(r, Object{"matchLabels": Object{"zone": "q"}}, Object{"matchExpressions": list{Object{"key": "zone", "operator": "Exists"}}})
	default:
		o["cidr"] = ciliumCIDR(r)
	}
	if r.IntN(3) == 0 {
		o["except"] = some(r, 2, func() any {
			return one(r, "192.0.2.0/25", "198.51.100.8/29", "10.0.0.0/30", "2001:db8::/64", "203.0.113.0/24")
		})
	}
	return o
}

// ciliumSelector returns a selector of endpoints, by labels of several sources.
func ciliumSelector(r *rand.Rand, subject bool) Object {
	s := Object{}
	key := func() string {
		if subject && r.IntN(8) > 0 {
			return one(r, "app", "k8s:app", "any:app")
		}
		return one(r, "app", "app", "k8s:app", "any:app", "io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace",
			"k8s:io.cilium.k8s.namespace.labels.team", "io.cilium.k8s.namespace.labels.team", "io.cilium.k8s.policy.serviceaccount",
			"k8s:io.cilium.k8s.policy.cluster", "pod-template-hash", "reserved:host", "reserved:remote-node", "reserved:world-ipv4",
			"reserved:kube-apiserver", "container:app", "kube-apiserver")
	}
	value := func(key string) string {
		return one(r, map[string][]string{"app": {"x", "y"}, "k8s:app": {"x", "y"}, "any:app": {"x", "y"},
			"io.kubernetes.pod.namespace": {"a", "b"}, "k8s:io.kubernetes.pod.namespace": {"a", "b"},
			"k8s:io.cilium.k8s.namespace.labels.team": {"red", "blue"}, "io.cilium.k8s.namespace.labels.team": {"red", "blue"},
			"io.cilium.k8s.policy.serviceaccount": {"robot", "default"}, "k8s:io.cilium.k8s.policy.cluster": {"default", "other"},
			"pod-template-hash": {"1"}, "container:app": {"x"}}[key]...)
	}
	labels := Object{}
	for range one(r, 0, 1, 1, 2) {
		k := key()
		if other, any := strings.CutPrefix(k, "any:"); labels[other] != nil || !any && labels["any:"+k] != nil {
			continue // to Cilium both are one key, and which value holds is a matter of chance
		}
		if v := valuesOf(k); v {
			labels[k] = value(k)
		} else {
			labels[k] = ""
		}
	}
	if len(labels) > 0 {
		s["matchLabels"] = labels
	}
	if r.IntN(4) == 0 {
		k := key()
		e := Object{"key": k, "operator": one(r, "In", "NotIn", "Exists", "DoesNotExist")}
		if op := e["operator"]; op == "In" || op == "NotIn" {
			e["values"] = list{""}
			if valuesOf(k) {
				e["values"] = list{value(k)}
			}
		}
		s["matchExpressions"] = list{e}
	}
	return s
}

// valuesOf reports whether labels of a key have values here.
func valuesOf(key string) bool {
	switch key {
	case "reserved:host", "reserved:remote-node", "reserved:world-ipv4", "reserved:kube-apiserver", "kube-apiserver":
		return false
	}
	return true
}

// CiliumManifests are the world's objects, but for policies.
func CiliumManifests() (out []Object) {
	for name, labels := range CiliumNamespaces {
		out = append(out, Object{"apiVersion": "v1", "kind": "Namespace", "metadata": Object{"name": name, "labels": labels}})
	}
	for name, addr := range CiliumNodes {
		out = append(out, Object{"apiVersion": "v1", "kind": "Node", "metadata": Object{"name": name},
			"status": Object{"addresses": list{Object{"type": "InternalIP", "address": addr}}}})
	}
	for i, p := range CiliumPods {
		out = append(out, Object{"apiVersion": "v1", "kind": "Pod",
			"metadata": Object{"name": p.Name, "namespace": p.Namespace, "labels": p.Labels},
			"spec": Object{"nodeName": p.Node, "serviceAccountName": p.Account,
				"containers": list{Object{"name": "c", "ports": list{Object{"name": "http", "containerPort": 80}}}}},
			"status": Object{"phase": "Running", "podIPs": list{Object{"ip": fmt.Sprintf("10.0.0.%d", i+1)}, Object{"ip": fmt.Sprintf("fd00::%x", i+1)}}}})
	}
	for name, cidrs := range CiliumGroups {
		out = append(out, Object{"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup",
			"metadata": Object{"name": name, "labels": CiliumGroupLabels[name]}, "spec": Object{"externalCIDRs": cidrs}})
	}
	return append(out, Object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  Object{"name": "kubernetes", "namespace": "default", "labels": Object{"kubernetes.io/service-name": "kubernetes"}},
		"endpoints": list{Object{"addresses": list{CiliumAPIServer}}}, "ports": list{Object{"port": 6443}}})
}
