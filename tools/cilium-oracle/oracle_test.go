// Package oracle_test compares what package cilium makes of policies with what
// Cilium's own code says: which objects its API server and its agent refuse,
// and whom its policy engine lets through.
package oracle_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/cilium/pkg/endpoint/regeneration"
	"github.com/cilium/cilium/pkg/fqdn/dns"
	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/identity/identitymanager"
	cilium_v2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/option"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	policyutils "github.com/cilium/cilium/pkg/policy/utils"
	testidentity "github.com/cilium/cilium/pkg/testutils/identity"
	testpolicy "github.com/cilium/cilium/pkg/testutils/policy"
	ciliumtypes "github.com/cilium/cilium/pkg/types"
	"github.com/cilium/cilium/pkg/u8proto"

	sluice "github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/cilium"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

var (
	cases = flag.Int("cases", 1500, "random sets of policies")
	first = flag.Uint64("first", 0, "seed of the first one")
)

func TestMain(m *testing.M) {
	flag.Parse()
	option.Config.EnableIPv4, option.Config.EnableIPv6 = true, true
	option.Config.UnsafeDaemonConfigOption.AllowLocalhost = option.AllowLocalhostAlways // as its agent sets it in Kubernetes
	policy.SetPolicyEnabled(option.DefaultEnforcement)
	api.InitEntities("default")
	os.Exit(m.Run())
}

// parse reads an object as Cilium's agent does.
func parse(o verdicttest.Object) (api.Rules, error) {
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if o["kind"] == cilium.ClusterwideKind {
		var ccnp cilium_v2.CiliumClusterwideNetworkPolicy
		if err := json.Unmarshal(raw, &ccnp); err != nil {
			return nil, err
		}
		return ccnp.Parse(slog.New(slog.DiscardHandler), "default")
	}
	var cnp cilium_v2.CiliumNetworkPolicy
	if err := json.Unmarshal(raw, &cnp); err != nil {
		return nil, err
	}
	return cnp.Parse(slog.New(slog.DiscardHandler), "default")
}

// convert reads an object as the product does.
func convert(t *testing.T, o verdicttest.Object) (*sluice.Policy, []sluice.Rejection) {
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var np cilium.NetworkPolicy
	if err := json.Unmarshal(raw, &np); err != nil {
		return cilium.Salvage(raw, err)
	}
	if o["kind"] == cilium.ClusterwideKind {
		return cilium.ConvertClusterwide(&np)
	}
	return cilium.Convert(&np)
}

// unsupported are the reasons for which the product refuses what Cilium takes.
var unsupported = []string{"not supported", "is off by default", "unknown field"}

func TestSanitize(t *testing.T) {
	r := rand.New(rand.NewPCG(*first, 1))
	accepted, refused, differing := 0, 0, 0
	for i := range 20 * *cases {
		o := verdicttest.RandomCilium(r, "p")
		_, theirs := parse(o)
		p, faults := convert(t, o)
		if theirs == nil {
			accepted++
		} else {
			refused++
		}
		if p.Rejected == (theirs != nil) {
			continue
		}
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if theirs == nil && schemaOf(o["kind"].(string)).validate(raw) != nil {
			continue // its agent never sees it
		}
		if p.Rejected && slices.ContainsFunc(faults, func(f sluice.Rejection) bool {
			return slices.ContainsFunc(unsupported, func(s string) bool { return strings.Contains(f.Reason, s) })
		}) {
			continue
		}
		t.Errorf("object %d: Cilium says %v; we say %v\n%s", i, theirs, faults, raw)
		if differing++; differing > 10 {
			break
		}
	}
	if accepted < *cases || refused < *cases {
		t.Errorf("%d accepted, %d refused: the objects try too little", accepted, refused)
	}
}

// owner is a pod to the engine.
type owner struct{ id uint64 }

func (o *owner) GetID() uint64                               { return o.id }
func (o *owner) PolicyDebug(string, ...any)                  {}
func (o *owner) IsHost() bool                                { return false }
func (o *owner) PreviousMapStateSizes() policy.MapStateSizes { return policy.MapStateSizes{} }
func (o *owner) RegenerateIfAlive(*regeneration.ExternalRegenerationMetadata) <-chan bool {
	done := make(chan bool)
	close(done)
	return done
}
func (o *owner) GetIngressNamedPort(name string, proto u8proto.U8proto) uint16 {
	if name == "http" && proto == u8proto.TCP {
		return 80
	}
	return 0
}

// namedPorts are those of all pods, as Cilium's agent collects them.
type namedPorts struct{ ciliumtypes.NamedPortMultiMap }

func (n namedPorts) GetNamedPorts() ciliumtypes.NamedPortMultiMap { return n.NamedPortMultiMap }

// remote is one end: a pod, a node, or nobody's address.
type remote struct {
	name   string // as the product's queries have it
	addr   netip.Addr
	node   string // that has the address
	id     *identity.Identity
	pod    *verdicttest.CiliumPod
	family int
}

func labelsOf(p *verdicttest.CiliumPod) labels.LabelArray {
	m := map[string]string{
		"io.kubernetes.pod.namespace":                                p.Namespace,
		"io.cilium.k8s.policy.cluster":                               "default",
		"io.cilium.k8s.policy.serviceaccount":                        p.Account,
		"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": p.Namespace,
		"io.cilium.k8s.namespace.labels.team":                        verdicttest.CiliumNamespaces[p.Namespace]["team"],
	}
	for k, v := range p.Labels {
		if k != "pod-template-hash" { // left out of identities by default
			m[k] = v
		}
	}
	var out labels.LabelArray
	for k, v := range m {
		out = append(out, labels.NewLabel(k, v, labels.LabelSourceK8s))
	}
	return out.Sort()
}

func reserved(names ...string) labels.LabelArray {
	var out labels.LabelArray
	for _, n := range names {
		out = append(out, labels.NewLabel(n, "", labels.LabelSourceReserved))
	}
	return out.Sort()
}

// remotes are all ends that there are, given the names that policies are about.
func remotes(names []api.FQDNSelector) (out []remote) {
	for i := range verdicttest.CiliumPods {
		p := &verdicttest.CiliumPods[i]
		id := identity.NewIdentityFromLabelArray(identity.NumericIdentity(1000+i), labelsOf(p))
		out = append(out, remote{name: p.Namespace + "/" + p.Name, id: id, pod: p})
	}
	for _, name := range slices.Sorted(maps.Keys(verdicttest.CiliumNodes)) {
		addr := verdicttest.CiliumNodes[name]
		x := remote{name: "ip:" + addr, addr: netip.MustParseAddr(addr), node: name,
			id: identity.NewIdentityFromLabelArray(identity.ReservedIdentityRemoteNode, reserved("remote-node"))}
		if addr == verdicttest.CiliumAPIServer {
			x.id = identity.NewIdentityFromLabelArray(identity.ReservedIdentityKubeAPIServer, reserved("kube-apiserver", "remote-node"))
		}
		out = append(out, x)
	}
	for i, addr := range slices.Sorted(maps.Keys(verdicttest.CiliumWorld)) {
		a := netip.MustParseAddr(addr)
		lbls := labels.GetCIDRLabels(netip.PrefixFrom(a, a.BitLen()))
		for group, cidrs := range verdicttest.CiliumGroups {
			for _, c := range cidrs {
				if netip.MustParsePrefix(c).Contains(a) {
					for k, v := range verdicttest.CiliumGroupLabels[group] {
						l := labels.NewLabel(k, v, labels.LabelSourceCIDRGroup)
						lbls[l.Key] = l
						e := labels.EncodedCIDRGroupLabel(l.Key, l.Value, l.Source)
						lbls[e.Key] = e
					}
					l := api.LabelForCIDRGroupRef(group)
					lbls[l.Key] = l
				}
			}
		}
		for _, sel := range names {
			if re, err := sel.ToRegex(); err == nil && re.MatchString(dns.FQDN(verdicttest.CiliumWorld[addr])) {
				l := sel.IdentityLabel()
				lbls[l.Key] = l
			}
		}
		out = append(out, remote{name: "ip:" + addr, addr: a,
			id: identity.NewIdentity(identity.IdentityScopeLocal+identity.NumericIdentity(i+1), lbls)})
	}
	return out
}

var host = identity.NewIdentityFromLabelArray(identity.ReservedIdentityHost, reserved("host"))

// engine is Cilium's policy engine with policies in it.
type engine struct {
	t       *testing.T
	repo    *policy.Repository
	idmgr   identitymanager.IDManager
	remotes []remote
	made    map[string]*policy.EndpointPolicy
}

func newEngine(t *testing.T, rules []api.Rules) *engine {
	var names []api.FQDNSelector
	for _, list := range rules {
		for _, x := range list {
			for _, e := range x.Egress {
				names = append(names, e.ToFQDNs...)
			}
		}
	}
	e := &engine{t: t, remotes: remotes(names), made: map[string]*policy.EndpointPolicy{}}
	ids := identity.IdentityMap{host.ID: host.LabelArray}
	for _, x := range e.remotes {
		ids[x.id.ID] = x.id.LabelArray
	}
	log := slog.New(slog.DiscardHandler)
	e.idmgr = identitymanager.NewIDManager(log)
	e.repo = policy.NewPolicyRepository(log, ids, nil, nil, e.idmgr, testpolicy.NewPolicyMetricsNoop())
	e.repo.GetSelectorCache().SetLocalIdentityNotifier(testidentity.NewDummyIdentityNotifier())
	ports := ciliumtypes.NewNamedPortMultiMap()
	for _, x := range e.remotes {
		if x.pod != nil {
			ports.Update(x.id.ID, nil, ciliumtypes.NamedPortMap{"http": ciliumtypes.PortProto{Port: 80, Proto: u8proto.TCP}})
		}
	}
	e.repo.SetNamedPortsGetter(namedPorts{ports})
	e.idmgr.Subscribe(testpolicy.SelectorCacheObserver{Cache: e.repo.GetSubjectSelectorCache()})
	for _, x := range e.remotes {
		if x.pod != nil {
			e.idmgr.Add(x.id)
		}
	}
	for _, list := range rules {
		e.repo.MustAddPolicyEntries(policyutils.RulesToPolicyEntries(list))
	}
	return e
}

// allows asks what a pod's policies say of a remote end.
func (e *engine) allows(pod *remote, dir rule.Direction, far *remote, proto u8proto.U8proto, port uint16) bool {
	p := e.made[pod.name]
	if p == nil {
		sel, _, err := e.repo.ComputeSelectorPolicy(pod.id)
		if err != nil {
			e.t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		p = sel.DistillPolicy(log, &owner{uint64(pod.id.ID)}, map[string]uint16{policy.FallbackRedirectID: 65535})
		p.Ready()
		p.Detach(log)
		e.made[pod.name] = p
	}
	id := far.id.ID
	if far.node == pod.pod.Node {
		id = host.ID
	}
	key := policy.IngressKey()
	if dir == rule.Egress {
		key = policy.EgressKey()
	}
	entry, _, _ := p.Lookup(key.WithIdentity(id).WithPortProto(proto, port))
	return !entry.IsDeny()
}

// tried are the protocols and ports of flows; of ICMP the type.
var tried = []struct {
	proto u8proto.U8proto
	port  uint16
}{{u8proto.TCP, 80}, {u8proto.TCP, 53}, {u8proto.UDP, 53}, {u8proto.UDP, 80}, {u8proto.SCTP, 80}, {u8proto.TCP, 8080}, {u8proto.ICMP, 8}}

func TestEngine(t *testing.T) {
	differing, opened, closed := 0, 0, 0
	for seed := *first; seed < *first+uint64(*cases); seed++ {
		r := rand.New(rand.NewPCG(seed, 2))
		var objects []verdicttest.Object
		var rules []api.Rules
		for i := 0; i < 1+r.IntN(4); {
			o := verdicttest.RandomCilium(r, fmt.Sprintf("p%d", i))
			x, err := parse(o)
			if p, _ := convert(t, o); err != nil || p.Rejected {
				continue
			}
			objects, rules = append(objects, o), append(rules, x)
			i++
		}
		c := load(t, objects)
		e := newEngine(t, rules)
		var ends []verdict.End
		for _, x := range e.remotes {
			end, err := c.End(x.name)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, end)
		}
		told := false
		for i := range e.remotes {
			pod := &e.remotes[i]
			for j := range e.remotes {
				far := &e.remotes[j]
				if pod.pod == nil || i == j {
					continue
				}
				for _, dir := range []rule.Direction{rule.Ingress, rule.Egress} {
					for _, f := range tried {
						src, dst := ends[i], ends[j]
						if dir == rule.Ingress {
							src, dst = dst, src
						}
						pairs, err := verdict.Pairs(src, dst)
						if err != nil || f.proto == u8proto.ICMP && !pairs[0].Src.Is4() {
							continue
						}
						port := f.port
						if f.proto == u8proto.ICMP {
							port <<= 8
						}
						ours, err := c.Direction(dir, src, dst, pairs[0], verdict.Flow{Protocol: sluice.Protocol(f.proto), Port: port})
						if err != nil {
							t.Fatal(err)
						}
						theirs := e.allows(pod, dir, far, f.proto, f.port)
						if theirs {
							opened++
						} else {
							closed++
						}
						if ours.Allowed != theirs && !told {
							told = true
							differing++
							t.Errorf("seed %d: %v of %s, far end %s, %v/%d: Cilium allows: %v, we: %v (%s)\n%s", seed, dir, pod.name, far.name,
								f.proto, f.port, theirs, ours.Allowed, ours.Text(), spell(objects))
						}
					}
				}
			}
		}
		if differing > 5 {
			break
		}
	}
	if total := opened + closed; opened < total/10 || closed < total/10 {
		t.Errorf("%d flows allowed, %d denied: the policies try too little", opened, closed)
	}
	t.Logf("%d flows allowed, %d denied", opened, closed)
}

func spell(objects []verdicttest.Object) string {
	var b strings.Builder
	for _, o := range objects {
		raw, _ := json.Marshal(o)
		b.Write(append(raw, '\n'))
	}
	return b.String()
}

// load has the product read the world and policies.
func load(t *testing.T, policies []verdicttest.Object) *verdict.Cluster {
	dir := t.TempDir()
	for i, o := range append(verdicttest.CiliumManifests(), policies...) {
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d.json", i)), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string][]netip.Addr{}
	for addr, name := range verdicttest.CiliumWorld {
		names[name] = append(names[name], netip.MustParseAddr(addr))
	}
	c, err := verdict.Load(dir, names)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return c
}
