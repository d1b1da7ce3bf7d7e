package suggest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// mostComments is how many flows a rule's comment lists.
const mostComments = 12

// YAML writes the policies, each rule under the flows that it is from.
func (r *Result) YAML(out io.Writer) error {
	var b strings.Builder
	for i, p := range r.Policies {
		if i > 0 {
			b.WriteString("---\n")
		}
		p.write(&b)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (p *Policy) write(b *strings.Builder) {
	fmt.Fprintf(b, "# for %s\n", comment(some(p.Pods, ", ")))
	if p.FromNode > 0 {
		fmt.Fprintf(b, "# what comes from the pods' own node (%d flows) needs no rule\n", p.FromNode)
	}
	fmt.Fprintf(b, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: %s\n  namespace: %s\nspec:\n  podSelector:\n",
		scalar(p.Name), scalar(p.Namespace))
	writeSelector(b, "    ", p.Selector, p.Without)
	b.WriteString("  policyTypes:\n  - Ingress\n  - Egress\n")
	writeRules(b, "ingress", "from", p.Ingress)
	writeRules(b, "egress", "to", p.Egress)
}

// comment makes text a part of one line: who made a file of flows may have put
// the end of a line into a name, and a policy behind it.
func comment(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '?'
	}, text)
}

func some(list []string, separator string) string {
	if len(list) <= mostComments {
		return strings.Join(list, separator)
	}
	return strings.Join(list[:mostComments], separator) + fmt.Sprintf(" and %d more", len(list)-mostComments)
}

func writeRules(b *strings.Builder, field, peers string, rules []Rule) {
	if len(rules) == 0 {
		fmt.Fprintf(b, "  # nothing was seen: all is denied\n  %s: []\n", field)
		return
	}
	fmt.Fprintf(b, "  %s:\n", field)
	for _, r := range rules {
		for i, text := range r.From {
			if i == mostComments {
				fmt.Fprintf(b, "  # and %d more\n", len(r.From)-i)
				break
			}
			fmt.Fprintf(b, "  # %s\n", comment(text))
		}
		for _, text := range slices.Compact(r.Notes) {
			fmt.Fprintf(b, "  # note: %s\n", comment(text))
		}
		fmt.Fprintf(b, "  - %s:\n", peers)
		for _, p := range r.Peers {
			p.write(b)
		}
		b.WriteString("    ports:\n")
		for _, p := range r.Ports {
			fmt.Fprintf(b, "    - protocol: %s\n      port: %d\n", p.Proto, p.Port)
			if p.End > 0 {
				fmt.Fprintf(b, "      endPort: %d\n", p.End)
			}
		}
	}
}

func (p Peer) write(b *strings.Builder) {
	lead := "    - "
	if p.CIDR.IsValid() {
		fmt.Fprintf(b, "%sipBlock:\n        cidr: %s\n", lead, scalar(p.CIDR.String()))
		return
	}
	if p.Namespace != "" {
		fmt.Fprintf(b, "%snamespaceSelector:\n        matchLabels:\n          kubernetes.io/metadata.name: %s\n", lead, scalar(p.Namespace))
		lead = "      "
	}
	fmt.Fprintf(b, "%spodSelector:\n", lead)
	writeSelector(b, "        ", p.Pods, p.Without)
}

func writeSelector(b *strings.Builder, indent string, labels map[string]string, without []string) {
	b.WriteString(indent + "matchLabels:\n")
	writeLabels(b, indent+"  ", labels)
	if len(without) > 0 {
		b.WriteString(indent + "matchExpressions:\n")
	}
	for _, k := range without {
		fmt.Fprintf(b, "%s- key: %s\n%s  operator: DoesNotExist\n", indent, scalar(k), indent)
	}
}

func writeLabels(b *strings.Builder, indent string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(b, "%s%s: %s\n", indent, scalar(k), scalar(labels[k]))
	}
}

// plain is text that YAML takes for text.
var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*$`)

// words are what YAML takes for something else.
var words = []string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}

func scalar(s string) string {
	if plain.MatchString(s) && !slices.Contains(words, strings.ToLower(s)) {
		return s
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		return `""` // of a string it fails never
	}
	return string(quoted)
}
