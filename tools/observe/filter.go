package observe

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// Filters collects what a command line says about the flows that are wanted, as
// hubble observe reads it: values of one flag are alternatives, flags narrow
// each other down, flags about either end match at one of both, and --not turns
// the flag after it round.
type Filters struct {
	allow, deny terms
	not         bool // of the next flag
}

// terms is what filters of one list say.
type terms struct {
	both, src, dst         []func(*flowpb.FlowFilter)
	eitherNS, srcNS, dstNS []string
	given                  []string // flags
}

// set adds to the filters whose ends are concerned.
type set = func(*flowpb.FlowFilter)

// clash lists flags that say contradictory things of one end.
var clash = [][]string{
	{"from-ip", "ip", "from-pod", "pod"}, {"to-ip", "ip", "to-pod", "pod"},
	{"from-ip", "ip", "from-namespace", "namespace", "from-all-namespaces", "all-namespaces"},
	{"to-ip", "ip", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"},
	{"from-pod", "namespace", "all-namespaces"}, {"to-pod", "namespace", "all-namespaces"},
	{"label", "from-label"}, {"label", "to-label"}, {"port", "from-port"}, {"port", "to-port"},
	{"identity", "from-identity"}, {"identity", "to-identity"}, {"workload", "from-workload"}, {"workload", "to-workload"},
	{"encrypted", "unencrypted"}, {"reply", "not-reply"},
}

// Set takes one flag with its value.
func (f *Filters) Set(name, value string) error {
	if name == "not" {
		if f.not {
			return errors.New("one --not after the other")
		}
		f.not = true
		return nil
	}
	t := &f.allow
	if f.not {
		t, f.not = &f.deny, false
	}
	t.given = append(t.given, name)
	for _, group := range clash {
		if !slices.Contains(group, name) {
			continue
		}
		for _, other := range group {
			if other != name && slices.Contains(t.given, other) {
				return fmt.Errorf("--%s and --%s can't be combined", other, name)
			}
		}
	}
	return t.set(name, value)
}

// Requests returns what to ask a server for.
func (f *Filters) Requests() (allow, deny []*flowpb.FlowFilter, err error) {
	if f.not {
		return nil, nil, errors.New("--not is followed by no filter")
	}
	if allow, err = f.allow.filters(); err == nil {
		deny, err = f.deny.filters()
	}
	return allow, deny, err
}

// filters returns one filter, or two of which one has to match.
func (t *terms) filters() ([]*flowpb.FlowFilter, error) {
	if len(t.given) == 0 {
		return nil, nil
	}
	left, right := &flowpb.FlowFilter{}, &flowpb.FlowFilter{}
	for _, s := range t.both {
		s(left)
		s(right)
	}
	for _, s := range t.src {
		s(left)
	}
	for _, s := range t.dst {
		s(right)
	}
	var err error
	within := func(pods *[]string, namespaces []string) {
		var fault error
		if *pods, fault = inNamespaces(*pods, namespaces); fault != nil {
			err = fault
		}
	}
	for _, x := range []*flowpb.FlowFilter{left, right} {
		within(&x.SourcePod, t.srcNS)
		within(&x.DestinationPod, t.dstNS)
	}
	within(&left.SourcePod, t.eitherNS)
	within(&right.DestinationPod, t.eitherNS)
	if len(t.src)+len(t.dst)+len(t.eitherNS) == 0 {
		return []*flowpb.FlowFilter{left}, err
	}
	return []*flowpb.FlowFilter{left, right}, err
}

// inNamespaces puts names of pods into namespaces, "" standing for any.
func inNamespaces(pods, namespaces []string) ([]string, error) {
	if len(namespaces) == 0 {
		return pods, nil
	}
	if len(pods) == 0 {
		pods = []string{""}
	}
	var out []string
	for _, p := range pods {
		ns, _, named := strings.Cut(p, "/")
		if named && !slices.Contains(namespaces, ns) && !slices.Contains(namespaces, "") {
			return nil, fmt.Errorf("pod %s is not in namespace %s", p, strings.Join(namespaces, " or "))
		}
		if named {
			out = append(out, p)
			continue
		}
		for _, ns := range namespaces {
			out = append(out, ns+"/"+p)
		}
	}
	return out, nil
}
