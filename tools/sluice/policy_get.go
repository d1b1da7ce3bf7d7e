package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/source/object"
)

func newPolicyGetCommand() *cobra.Command {
	var agent agentFlags
	var output, namespace string
	forms := newFormats(policiesTable)
	forms["wide"] = policiesWide
	cmd := &cobra.Command{
		Use:   "get [KIND] [NAMESPACE/NAME | NAME]",
		Short: "Show the policies that the agent of this node has in force",
		Long: `Show policies as the agent has them: in which state, compiled from which version,
in which tier and in which place in the order of judgement, which pods of this
node they select, how often they gave a verdict, and what is rejected and why.
-o wide shows each rule with its hits, -o yaml everything.

States: enforced; audit and staged (reported, not enforced); partly (some of it is
rejected, the rest is in force); rejected (not valid: what it would close is
closed, nothing is opened); outdated (the same, with its last valid version in
force beside); pending (this version is not in force yet).

Hits count since the agent started: flows that a rule allowed, and packets that it
or the isolation denied. Established flows of the kernel's cache count once.`,
		Example: `  sudo sluice policy get
  sudo sluice policy get networkpolicy production/default-deny -o yaml
  sudo sluice policy get adminnetworkpolicy -o wide
  sudo sluice policy get -o json | jq '.[] | select(.state == "rejected")'`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := forms.check(output); err != nil {
				return err
			}
			kinds, key, err := policyArgs(args)
			if err != nil {
				return usageError(err)
			}
			key.Namespace = cmp.Or(key.Namespace, namespace)
			client, err := agent.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askPatience)
			defer cancel()
			all, err := client.Policies(ctx, api.Which{Namespace: key.Namespace, Name: key.Name})
			if err != nil {
				return err
			}
			found := slices.DeleteFunc(all, func(p api.Policy) bool { return kinds != nil && !slices.Contains(kinds, p.Kind) })
			if key.Name != "" && len(found) == 0 {
				return fmt.Errorf("policy %s: not known to the agent", strings.Join(args, " "))
			}
			return forms[output](cmd.OutOrStdout(), found)
		},
	}
	agent.register(cmd)
	forms.register(cmd, &output)
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "only policies of this namespace")
	return cmd
}

// policyArgs understands [KIND] [NAMESPACE/NAME | NAME].
func policyArgs(args []string) (kinds []string, key api.PolicyKey, err error) {
	if len(args) == 1 && strings.Contains(args[0], "/") {
		args = append([]string{""}, args...)
	}
	if len(args) > 0 && args[0] != "" {
		if kinds = policyKinds(args[0]); kinds == nil {
			return nil, key, fmt.Errorf("%q: want a kind of policies, such as networkpolicy, or NAMESPACE/NAME", args[0])
		}
	}
	if len(args) > 1 {
		key, err = policyName(args[1])
	}
	return kinds, key, err
}

func policyName(s string) (api.PolicyKey, error) {
	ns, name, namespaced := strings.Cut(s, "/")
	if !namespaced {
		ns, name = "", s
	}
	if name == "" || namespaced && ns == "" || strings.Contains(name, "/") {
		return api.PolicyKey{}, fmt.Errorf("policy %q: want NAMESPACE/NAME, or the name of one without a namespace", s)
	}
	return api.PolicyKey{Namespace: ns, Name: name}, nil
}

// shortKinds are the names that kubectl knows beside kinds and plurals. One may
// stand for the kinds of two projects.
var shortKinds = map[string][]string{
	"netpol": {"NetworkPolicy"}, "np": {"NetworkPolicy"},
	"cnp":      {"CiliumNetworkPolicy", "ClusterNetworkPolicy"},
	"ciliumnp": {"CiliumNetworkPolicy"}, "ccnp": {"CiliumClusterwideNetworkPolicy"},
	"anp": {"AdminNetworkPolicy"}, "banp": {"BaselineAdminNetworkPolicy"},
	"gnp": {"GlobalNetworkPolicy"}, "cgnp": {"GlobalNetworkPolicy"}, "sgnp": {"StagedGlobalNetworkPolicy"},
	"snp": {"StagedNetworkPolicy"}, "sknp": {"StagedKubernetesNetworkPolicy"},
}

// policyKinds returns the kinds that a user's word for them means.
func policyKinds(word string) []string {
	word = strings.ToLower(word)
	word, _, _ = strings.Cut(word, ".") // of a resource with its group
	if kinds := shortKinds[word]; kinds != nil {
		return kinds
	}
	if base, ok := strings.CutSuffix(word, "ies"); ok {
		word = base + "y"
	}
	for _, kind := range object.PolicyKinds() {
		if strings.ToLower(kind) == word {
			return []string{kind}
		}
	}
	return nil
}

func policiesTable(out io.Writer, list []api.Policy) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PLACE\tPOLICY\tSTATE\tTIER\tORDER\tPODS\tINGRESS\tEGRESS\tALLOWED\tDENIED\tAUDITED\tFROM")
	for i := range list {
		p := &list[i]
		place, tier, order := partsText(p.Parts)
		in, eg := sectionText(p, true), sectionText(p, false)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%s\n", place, p.PolicyKey, p.State, tier, order, len(p.Endpoints), in, eg,
			p.Hits.Allowed, p.Hits.Denied, p.Hits.Audited, cmp.Or(p.Source, "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	paint := painterFor(out)
	for i := range list {
		for _, r := range list[i].Rejections {
			if _, err := fmt.Fprintln(out, paint.paint(yellow, "Rejected: "+rejectionText(&r))); err != nil {
				return err
			}
		}
	}
	return nil
}

// partsText says where an object's parts are judged: all places, since another
// object's may lie between them.
func partsText(parts []api.Part) (place, tier, order string) {
	if len(parts) == 0 {
		return "-", "-", "-"
	}
	parts = slices.SortedFunc(slices.Values(parts), func(a, b api.Part) int { return cmp.Compare(a.Place, b.Place) })
	var places, tiers, orders []string
	for i := 0; i < len(parts); i++ {
		first, last := parts[i].Place, parts[i].Place
		for i+1 < len(parts) && parts[i+1].Place == last+1 {
			i, last = i+1, last+1
		}
		if places = append(places, strconv.Itoa(first)); last > first {
			places[len(places)-1] += "-" + strconv.Itoa(last)
		}
	}
	for i := range parts {
		tiers, orders = append(tiers, parts[i].Tier), append(orders, orderText(parts[i].Order))
	}
	join := func(list []string) string { return strings.Join(slices.Compact(list), ",") }
	return join(places), join(tiers), join(orders)
}

// orderText names an order; a policy without one is judged after all that have
// one, and one whose order is illegible before them.
func orderText(order float64) string {
	switch {
	case order >= policy.NoOrder:
		return "none"
	case order <= policy.OrderUnplaced:
		return "illegible"
	}
	return strconv.FormatFloat(order, 'f', -1, 64)
}

// sectionText says in a word what a policy does in one direction.
func sectionText(p *api.Policy, ingress bool) string {
	rules, text := 0, "-"
	for i := range p.Parts {
		s := p.Parts[i].Egress
		if ingress {
			s = p.Parts[i].Ingress
		}
		if s == nil {
			continue
		}
		rules += len(s.Rules)
		if text != "closed" {
			text = map[bool]string{true: "closed", false: "open"}[s.Default == "deny"]
		}
	}
	if rules > 0 {
		text += fmt.Sprintf(", %d rules", rules)
	}
	return text
}

func policiesWide(out io.Writer, list []api.Policy) error {
	for i := range list {
		p := &list[i]
		fmt.Fprintf(out, "%s: %s", p.PolicyKey, p.State)
		if p.Source != "" {
			fmt.Fprintf(out, ", from %s", p.Source)
		}
		fmt.Fprintf(out, "\n  pods of this node: %s\n", cmp.Or(strings.Join(p.Endpoints, ", "), "none"))
		for _, r := range p.Rejections {
			fmt.Fprintf(out, "  rejected: %s\n", rejectionText(&r))
		}
		for j := range p.Parts {
			if err := partWide(out, &p.Parts[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

func partWide(out io.Writer, x *api.Part) error {
	closes := ""
	if x.Closes {
		closes = ", stands for a version that is not valid"
	}
	fmt.Fprintf(out, "  place %d: tier %s (%s), order %s%s; subject: %s\n", x.Place, x.Tier, orderText(x.TierOrder), orderText(x.Order), closes, strings.Join(x.Subject, " or "))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "    RULE\tACTION\tPEERS\tPORTS\tALLOWED\tDENIED\tAUDITED\tLAST")
	row := func(name, action, peers, ports string, h *api.Hits) {
		last := "never"
		if h.Last != nil {
			last = age(*h.Last) + " ago"
		}
		fmt.Fprintf(w, "    %s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\n", name, action, peers, ports, h.Allowed, h.Denied, h.Audited, last)
	}
	for _, s := range []struct {
		name string
		*api.Section
	}{{"ingress", x.Ingress}, {"egress", x.Egress}} {
		if s.Section == nil {
			continue
		}
		for k := range s.Rules {
			r := &s.Rules[k]
			peers := cmp.Or(strings.Join(r.Peers, " or "), "nobody")
			for _, more := range r.And {
				peers += " and " + more
			}
			for _, less := range r.Not {
				peers += " but not " + less
			}
			row(fmt.Sprintf("%s[%d]", cmp.Or(r.Path, s.name), r.Rule), r.Action, peers, cmp.Or(strings.Join(r.Ports, ", "), "none"), &r.Hits)
		}
		row(s.name+" else", s.Default, "any", "any", &s.Hits)
	}
	return w.Flush()
}
