package verdict_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/cilium"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

// A slow reading of Cilium's documentation, from the objects as they are
// written: labels are lists of strings, and nothing is prepared.

type object = verdicttest.Object

// far is a remote end with all labels that Cilium gives it.
type far struct {
	labels []string // source:key=value
	addr   netip.Addr
	world  bool
	own    bool // the node of the pod
}

func podLabels(p *verdicttest.CiliumPod) []string {
	out := []string{"k8s:io.kubernetes.pod.namespace=" + p.Namespace, "k8s:io.cilium.k8s.policy.cluster=default",
		"k8s:io.cilium.k8s.policy.serviceaccount=" + p.Account,
		"k8s:io.cilium.k8s.namespace.labels.team=" + verdicttest.CiliumNamespaces[p.Namespace]["team"]}
	for k, v := range p.Labels {
		if k != "pod-template-hash" {
			out = append(out, "k8s:"+k+"="+v)
		}
	}
	return out
}

func farOf(name string, pod *verdicttest.CiliumPod) far {
	for i := range verdicttest.CiliumPods {
		if p := &verdicttest.CiliumPods[i]; p.Namespace+"/"+p.Name == name {
			return far{labels: podLabels(p)}
		}
	}
	a := netip.MustParseAddr(strings.TrimPrefix(name, "ip:"))
	for node, addr := range verdicttest.CiliumNodes {
		if addr != a.String() {
			continue
		}
		x := far{addr: a, own: node == pod.Node, labels: []string{"reserved:remote-node="}}
		if x.own {
			x.labels = []string{"reserved:host="}
		}
		if addr == verdicttest.CiliumAPIServer {
			x.labels = append(x.labels, "reserved:kube-apiserver=")
		}
		return x
	}
	if a.Is4() {
		return far{addr: a, world: true, labels: []string{"reserved:world-ipv4="}}
	}
	return far{addr: a, world: true, labels: []string{"reserved:world-ipv6="}}
}

// holds judges one condition: key has a source before a colon, or means any.
func holds(labels []string, key, op string, values []any) bool {
	source, name, ok := strings.Cut(key, ":")
	if !ok {
		source, name = "any", key
	}
	has, in := false, false
	for _, l := range labels {
		s, rest, _ := strings.Cut(l, ":")
		k, v, _ := strings.Cut(rest, "=")
		if k == name && (source == "any" || s == source) {
			has, in = true, in || slices.Contains(values, any(v))
		}
	}
	switch op {
	case "In":
		return in
	case "NotIn":
		return !in
	case "Exists":
		return has
	}
	return !has
}

func conditions(sel object) (out [][3]any) {
	labels, _ := sel["matchLabels"].(object)
	for k, v := range labels {
		out = append(out, [3]any{k, "In", []any{v}})
	}
	exprs, _ := sel["matchExpressions"].([]any)
	for _, e := range exprs {
		values, _ := e.(object)["values"].([]any)
		out = append(out, [3]any{e.(object)["key"], e.(object)["operator"], values})
	}
	return out
}

func selects(sel object, labels []string, more ...[3]any) bool {
	for _, c := range append(conditions(sel), more...) {
		if !holds(labels, c[0].(string), c[1].(string), c[2].([]any)) {
			return false
		}
	}
	return true
}

// peer judges a selector of endpoints in a policy of a namespace.
func peerSelects(sel object, ns string, x far) bool {
	var more [][3]any
	namespace, teams, cluster := false, false, false
	for _, c := range conditions(sel) {
		key := c[0].(string)
		if strings.HasPrefix(key, "reserved:") {
			return selects(sel, x.labels)
		}
		key = strings.TrimPrefix(strings.TrimPrefix(key, "k8s:"), "any:")
		namespace = namespace || key == "io.kubernetes.pod.namespace"
		teams = teams || strings.HasPrefix(key, "io.cilium.k8s.namespace.labels.")
		cluster = cluster || key == "io.cilium.k8s.policy.cluster"
	}
	switch {
	case namespace:
	case ns == "":
		more = append(more, [3]any{"k8s:io.kubernetes.pod.namespace", "Exists", []any(nil)})
	case !teams:
		more = append(more, [3]any{"k8s:io.kubernetes.pod.namespace", "In", []any{ns}})
	}
	if !cluster {
		more = append(more, [3]any{"k8s:io.cilium.k8s.policy.cluster", "In", []any{"default"}})
	}
	return selects(sel, x.labels, more...)
}

func entity(name string, x far) bool {
	pod := strings.HasPrefix(x.labels[0], "k8s:")
	reserved := func(l string) bool { return slices.Contains(x.labels, "reserved:"+l+"=") }
	switch name {
	case "all":
		return true
	case "world":
		return x.world
	case "cluster":
		return pod || !x.world
	case "init", "unmanaged", "health", "ingress", "none":
		return false
	}
	return reserved(name)
}

func within(cidr string, x far) bool {
	if !x.world {
		return false
	}
	if p, err := netip.ParsePrefix(cidr); err == nil {
		return p.Contains(x.addr)
	}
	return cidr == x.addr.String()
}

func cidrRule(o object, x far) bool {
	except, _ := o["except"].([]any)
	for _, e := range except {
		if within(e.(string), x) {
			return false
		}
	}
	group := func(name string) bool {
		return slices.ContainsFunc(verdicttest.CiliumGroups[name], func(c string) bool { return within(c, x) })
	}
	if ref, ok := o["cidrGroupRef"]; ok {
		return group(ref.(string))
	}
	if sel, ok := o["cidrGroupSelector"]; ok {
		for name, labels := range verdicttest.CiliumGroupLabels {
			var all []string
			for k, v := range labels {
				all = append(all, "cidrgroup:"+k+"="+v)
			}
			if selects(sel.(object), all) && group(name) {
				return true
			}
		}
		return false
	}
	return within(o["cidr"].(string), x)
}

// resolves judges an element of toFQDNs, label by label.
func resolves(o object, x far) bool {
	name := verdicttest.CiliumWorld[x.addr.String()]
	if !x.world || name == "" {
		return false
	}
	if m, ok := o["matchName"].(string); ok && m != "" {
		return strings.ToLower(strings.TrimSuffix(m, ".")) == name
	}
	pattern := o["matchPattern"].(string)
	if pattern == "*" {
		return true
	}
	want, got := strings.Split(pattern, "."), strings.Split(name, ".")
	if want[0] == "**" && len(got) > len(want) {
		got = got[len(got)-len(want):]
	}
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		// One star a label is all that these patterns have.
		before, after, star := strings.Cut(strings.ReplaceAll(want[i], "**", "*"), "*")
		if !star && want[i] != got[i] || star && (len(got[i]) < len(before)+len(after) || !strings.HasPrefix(got[i], before) || !strings.HasSuffix(got[i], after)) {
			return false
		}
	}
	return true
}

func peerMatches(e object, side, ns string, x far) bool {
	named, matches := false, false
	for kind, judge := range map[string]func(any) bool{
		"Endpoints": func(v any) bool { return peerSelects(v.(object), ns, x) },
		"Entities":  func(v any) bool { return entity(v.(string), x) },
		"CIDR":      func(v any) bool { return within(v.(string), x) },
		"CIDRSet":   func(v any) bool { return cidrRule(v.(object), x) },
		"FQDNs":     func(v any) bool { return resolves(v.(object), x) },
		"Nodes":     func(any) bool { return false },
	} {
		l, ok := e[side+kind].([]any)
		switch {
		case !ok || kind == "FQDNs" && len(l) == 0:
		case len(l) == 0:
			return false // a list of nobody
		default:
			named, matches = true, matches || slices.ContainsFunc(l, judge)
		}
	}
	ports, _ := e["toPorts"].([]any)
	icmps, _ := e["icmps"].([]any)
	return matches || !named && len(ports)+len(icmps) > 0 // {} says nothing of anyone
}

func portMatches(e object, proto policy.Protocol, port int, named bool) bool {
	ports, _ := e["toPorts"].([]any)
	icmps, _ := e["icmps"].([]any)
	if len(ports)+len(icmps) == 0 {
		return true
	}
	names := map[string]policy.Protocol{"TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP}
	for _, p := range ports {
		list, _ := p.(object)["ports"].([]any)
		for _, x := range list {
			o := x.(object)
			text, _ := o["protocol"].(string)
			if text = strings.ToUpper(text); text != "" && text != "ANY" && names[text] != proto || proto == policy.ICMP {
				continue
			}
			number, err := strconv.ParseUint(o["port"].(string), 10, 16)
			end := number
			if e, ok := o["endPort"].(int); ok && uint64(e) > number {
				end = uint64(e)
			}
			switch {
			case err != nil: // a name; "http" is TCP 80 of every pod
				if named && strings.EqualFold(o["port"].(string), "http") && proto == policy.TCP && port == 80 {
					return true
				}
			case number == 0 || uint64(port) >= number && uint64(port) <= end:
				return true
			}
		}
	}
	for _, i := range icmps {
		fields, _ := i.(object)["fields"].([]any)
		for _, f := range fields {
			o := f.(object)
			if o["family"] == nil && proto == policy.ICMP && (o["type"] == port || o["type"] == 0) {
				return true
			}
		}
	}
	return false
}

func naiveCilium(objects []object, pod *verdicttest.CiliumPod, dir rule.Direction, x far, proto policy.Protocol, port int) bool {
	name, side := "ingress", "from"
	if dir == rule.Egress {
		name, side = "egress", "to"
	}
	isolated, allowed := false, false
	for _, o := range objects {
		ns, _ := o["metadata"].(object)["namespace"].(string)
		var specs []any
		if s, ok := o["spec"]; ok {
			specs = append(specs, s)
		}
		more, _ := o["specs"].([]any)
		for _, s := range append(specs, more...) {
			spec := s.(object)
			es := spec["endpointSelector"].(object)
			if labels, ok := es["matchLabels"].(object); ok && ns != "" {
				// The policy's own namespace takes the place of this label.
				labels = maps.Clone(labels)
				delete(labels, "k8s:io.kubernetes.pod.namespace")
				es = object{"matchLabels": labels, "matchExpressions": es["matchExpressions"]}
			}
			if ns != "" && ns != pod.Namespace || !selects(es, podLabels(pod)) {
				continue
			}
			allow, _ := spec[name].([]any)
			deny, _ := spec[name+"Deny"].([]any)
			if d, _ := spec["enableDefaultDeny"].(object); len(allow)+len(deny) > 0 && d[name] != false {
				isolated = true
			}
			// A named port is one of the destination's.
			pods := dir == rule.Ingress || strings.HasPrefix(x.labels[0], "k8s:")
			matches := func(e any) bool {
				return peerMatches(e.(object), side, ns, x) && portMatches(e.(object), proto, port, pods)
			}
			if slices.ContainsFunc(deny, matches) {
				return false
			}
			allowed = allowed || slices.ContainsFunc(allow, matches)
		}
	}
	return allowed || !isolated || dir == rule.Ingress && x.own
}

// TestCilium compares compiled policies with the slow reading.
func TestCilium(t *testing.T) {
	counts := map[bool]int{}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		var objects []object
		for i := 0; i < 1+r.IntN(3); {
			o := verdicttest.RandomCilium(r, fmt.Sprintf("p%d", i))
			raw, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			var np cilium.NetworkPolicy
			if err := json.Unmarshal(raw, &np); err != nil {
				t.Fatal(err)
			}
			p, _ := cilium.Convert(&np)
			if o["kind"] == cilium.ClusterwideKind {
				p, _ = cilium.ConvertClusterwide(&np)
			}
			if !p.Rejected {
				objects = append(objects, o)
				i++
			}
		}
		c := ciliumCluster(t, objects)
		names := []string{}
		for _, p := range verdicttest.CiliumPods {
			names = append(names, p.Namespace+"/"+p.Name)
		}
		for _, a := range verdicttest.CiliumNodes {
			names = append(names, "ip:"+a)
		}
		for a := range verdicttest.CiliumWorld {
			names = append(names, "ip:"+a)
		}
		for i := range verdicttest.CiliumPods {
			pod := &verdicttest.CiliumPods[i]
			for _, name := range names {
				if name != names[i] {
					compareCilium(t, c, objects, pod, names[i], name, counts)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if counts[true] < 1000 || counts[false] < 1000 {
		t.Errorf("%v allowed: the policies try too little", counts)
	}
}

func compareCilium(t *testing.T, c *verdict.Cluster, objects []object, pod *verdicttest.CiliumPod, podName, name string, counts map[bool]int) {
	x := farOf(name, pod)
	near, err := c.End(podName)
	if err != nil {
		t.Fatal(err)
	}
	end, err := c.End(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []rule.Direction{rule.Ingress, rule.Egress} {
		src, dst := near, end
		if dir == rule.Ingress {
			src, dst = end, near
		}
		pairs, err := verdict.Pairs(src, dst)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []verdict.Flow{{Protocol: policy.TCP, Port: 80}, {Protocol: policy.UDP, Port: 53}, {Protocol: policy.TCP, Port: 8080}, {Protocol: policy.ICMP, Port: 8 << 8}} {
			port := int(f.Port)
			if f.Protocol == policy.ICMP {
				if port >>= 8; !pairs[0].Src.Is4() {
					continue
				}
			}
			want := naiveCilium(objects, pod, dir, x, f.Protocol, port)
			got, err := c.Direction(dir, src, dst, pairs[0], f)
			if err != nil {
				t.Fatal(err)
			}
			counts[want]++
			if got.Allowed != want {
				raw, _ := json.Marshal(objects)
				t.Errorf("%v of %s, far end %s, %d/%d: %v (%s), want %v\n%s", dir, podName, name, f.Protocol, port, got.Allowed, got.Text(), want, raw)
			}
		}
	}
}

func ciliumCluster(t *testing.T, policies []object) *verdict.Cluster {
	t.Helper()
	dir := t.TempDir()
	for i, o := range append(verdicttest.CiliumManifests(), policies...) {
		raw, err := json.Marshal(o)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.json", i)), raw, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	names := map[string][]netip.Addr{}
	for addr, name := range verdicttest.CiliumWorld {
		names[name] = append(names[name], netip.MustParseAddr(addr))
	}
	c, err := verdict.Load(dir, names)
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}
