package object

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/policy/adminnetworkpolicy"
	"github.com/sluice-net/sluice/control/policy/calico"
	"github.com/sluice-net/sluice/control/policy/cilium"
	"github.com/sluice-net/sluice/control/policy/clusternetworkpolicy"
	"github.com/sluice-net/sluice/control/policy/networkpolicy"
)

// kinds are the kinds of objects that are read, by apiVersion and kind. Those
// of groups that Kubernetes itself doesn't serve are looked for in a cluster
// by discovery, under the same names.
var kinds = map[string]Kind{
	"v1 Namespace":                       read("Namespace", false, anything(Namespace), nil),
	"v1 Node":                            read("Node", false, anything(Node), nil),
	"v1 Pod":                             read("Pod", true, anything(Pod), nil),
	"v1 ServiceAccount":                  read("ServiceAccount", true, anything(Account[*corev1.ServiceAccount]), nil),
	"networking.k8s.io/v1 NetworkPolicy": read(networkpolicy.Kind, true, strictly(networkpolicy.Convert), one(networkpolicy.Salvage)),

	"v1 Service":                        read("Service", true, anything(Service), nil),
	"discovery.k8s.io/v1 EndpointSlice": read("EndpointSlice", true, anything(EndpointSlice), nil),

	"cilium.io/v2 CiliumNetworkPolicy":            read(cilium.Kind, true, anything(cilium.Convert), cilium.Salvage),
	"cilium.io/v2 CiliumClusterwideNetworkPolicy": read(cilium.ClusterwideKind, false, anything(cilium.ConvertClusterwide), cilium.SalvageClusterwide),
	"cilium.io/v2 CiliumCIDRGroup":                read(cilium.GroupKind, false, anything(Group), nil),

	"policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy":       read(clusternetworkpolicy.Kind, false, wholly(clusternetworkpolicy.Convert, clusternetworkpolicy.Absent), mending(wholly(clusternetworkpolicy.Convert, clusternetworkpolicy.Absent))),
	"policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy":         read(adminnetworkpolicy.Kind, false, wholly(adminnetworkpolicy.Convert, adminnetworkpolicy.Absent), mending(wholly(adminnetworkpolicy.Convert, adminnetworkpolicy.Absent))),
	"policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy": read(adminnetworkpolicy.BaselineKind, false, wholly(adminnetworkpolicy.ConvertBaseline, adminnetworkpolicy.AbsentBaseline), mending(wholly(adminnetworkpolicy.ConvertBaseline, adminnetworkpolicy.AbsentBaseline))),
}

// calicoGroups are where Calico's kinds are, the later ones preferred: what
// people write, and what Calico keeps of it where it has no other place.
var calicoGroups = []string{"crd.projectcalico.org/v1", "projectcalico.org/v3"}

func init() {
	for _, group := range calicoGroups {
		for name, kind := range map[string]string{"NetworkPolicy": calico.Kind, "GlobalNetworkPolicy": calico.GlobalKind,
			"StagedNetworkPolicy": calico.StagedKind, "StagedGlobalNetworkPolicy": calico.StagedGlobalKind} {
			namespaced := kind == calico.Kind || kind == calico.StagedKind
			kinds[group+" "+name] = read(kind, namespaced, anything(calico.Convert(kind)), calico.Salvage(kind))
		}
		kinds[group+" StagedKubernetesNetworkPolicy"] = read(calico.StagedKubernetesKind, true, strictly(calico.ConvertStagedKubernetes), nil)
		kinds[group+" Tier"] = read(calico.TierKind, false, anything(Tier), nil)
		kinds[group+" NetworkSet"] = read(calico.SetKind, true, anything(networkSet(calico.SetKind)), nil)
		kinds[group+" GlobalNetworkSet"] = read(calico.GlobalSetKind, false, anything(networkSet(calico.GlobalSetKind)), nil)
		kinds[group+" HostEndpoint"] = read(calico.HostEndpointKind, false, anything(hostEndpoint), nil)
	}
}

// Elsewhere lists the groups that serve the same objects as that of apiVersion,
// which is one of them, the preferred ones last; nil if there is only one.
func Elsewhere(apiVersion string) []string {
	if slices.Contains(calicoGroups, apiVersion) {
		return calicoGroups
	}
	return nil
}

// builtin are the groups that an API server serves without a
// CustomResourceDefinition.
var builtin = []string{"v1", "networking.k8s.io/v1", "discovery.k8s.io/v1"}

// Lookup returns the kind of that apiVersion and name.
func Lookup(apiVersion, kind string) (Kind, bool) {
	k, ok := kinds[apiVersion+" "+kind]
	return k, ok
}

// Known reports whether a kind of that name is read in another version of the
// group of apiVersion, or if that is empty in any group.
func Known(apiVersion, kind string) bool {
	group := func(apiVersion string) string {
		g, _, ok := strings.Cut(apiVersion, "/")
		switch {
		case !ok:
			return ""
		case g == "extensions": // where NetworkPolicy once was
			return "networking.k8s.io"
		}
		return g
	}
	for key := range kinds {
		if a, k, _ := strings.Cut(key, " "); k == kind && (apiVersion == "" || group(a) == group(apiVersion)) {
			return true
		}
	}
	return false
}

// Custom lists the kinds that come from CustomResourceDefinitions or other
// servers, by apiVersion, sorted.
func Custom() map[string][]string {
	out := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(kinds)) {
		apiVersion, kind, _ := strings.Cut(key, " ")
		if !slices.Contains(builtin, apiVersion) {
			out[apiVersion] = append(out[apiVersion], kind)
		}
	}
	return out
}

// PolicyKinds lists the kinds of policies, as policy.Origin names them.
func PolicyKinds() (out []string) {
	for _, k := range kinds {
		if strings.HasSuffix(k.Name, "Policy") {
			out = append(out, k.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// anything forgets the type of what a conversion returns, which has no use for
// more than the object.
func anything[P, V any](convert func(P) (V, []policy.Rejection)) conversion[P] {
	return func(obj P, _ []byte, _ field.ErrorList) (any, []policy.Rejection) { return convert(obj) }
}

// strictly is anything for a front-end that refuses unknown fields.
func strictly[P any](convert func(P, ...*field.Error) (*policy.Policy, []policy.Rejection)) conversion[P] {
	return func(obj P, _ []byte, unknown field.ErrorList) (any, []policy.Rejection) {
		return convert(obj, unknown...)
	}
}

// wholly is strictly for one that refuses absent fields as well, which only the
// document shows.
func wholly[P any](convert func(P, ...*field.Error) (*policy.Policy, []policy.Rejection), absent func(doc []byte) field.ErrorList) conversion[P] {
	return func(obj P, doc []byte, unknown field.ErrorList) (any, []policy.Rejection) {
		return convert(obj, append(absent(doc), unknown...)...)
	}
}

// one adapts a salvager that finds one fault.
func one(salvage func([]byte, error) (*policy.Policy, policy.Rejection)) salvager {
	return func(doc []byte, cause error) (*policy.Policy, []policy.Rejection) {
		p, r := salvage(doc, cause)
		return p, []policy.Rejection{r}
	}
}
