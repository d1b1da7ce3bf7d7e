package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/verdict"
)

// runWalk answers one question for a person.
func runWalk(cmd *cobra.Command, f *verdictFlags, args []string) error {
	out, err := format(f.output, "text", "json")
	if err != nil {
		return err
	}
	if f.expect {
		return usageError(errors.New("--expect: want --queries; for one answer there is --exit-code"))
	}
	flow, err := verdict.ParseFlow(args[2])
	if err != nil {
		return usageError(fmt.Errorf("%s: %w", args[2], err))
	}
	c, err := loadCluster(cmd, f.manifests, f.domains)
	if err != nil {
		return err
	}
	src, err1 := c.End(args[0])
	dst, err2 := c.End(args[1])
	if err := errors.Join(err1, err2); err != nil {
		return usageError(err)
	}
	trace, err := c.Walk(src, dst, flow)
	if err != nil {
		return usageError(err)
	}
	if out == "json" {
		trace.DecidedBy = inTiers(trace.DecidedBy)
		for _, b := range trace.Backends {
			b.DecidedBy = inTiers(b.DecidedBy)
		}
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(trace)
	} else {
		err = writeTrace(cmd.OutOrStdout(), trace)
	}
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	if f.exitCode && trace.Verdict == verdict.Deny {
		return failed()
	}
	return nil
}

func writeTrace(out io.Writer, t *verdict.Trace) error {
	paint := painterFor(out)
	var b strings.Builder
	port := t.Proto
	if t.Port > 0 {
		port = fmt.Sprintf("%s/%d", t.Proto, t.Port)
	}
	fmt.Fprintf(&b, "%s: %s to %s %s\n", paintWord(paint, t.Verdict), at(t.Src, t.SrcAddr.String()), at(t.Dst, t.DstAddr.String()), port)
	fmt.Fprintf(&b, "decided by %s\n", verdict.Decision{DecidedBy: t.DecidedBy, Reason: t.Reason}.Text())
	if t.Audit {
		b.WriteString("would be denied, but the policies that deny are staged or in audit\n")
	}
	if t.Service == "" {
		writeLegs(&b, paint, t)
	} else {
		fmt.Fprintf(&b, "\nService %s, where %s calls it: %s: %s\n", t.Service, t.Src, paintWord(paint, t.Egress.Verdict), t.Egress.Why)
		writeBackends(&b, paint, t)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func writeLegs(b *strings.Builder, paint painter, t *verdict.Trace) {
	for _, l := range []struct {
		name, of string
		leg      *verdict.Leg
	}{{"egress", t.Src, &t.Egress}, {"ingress", t.Dst, &t.Ingress}} {
		fmt.Fprintf(b, "\n%s of %s: %s: %s\n", l.name, l.of, paintWord(paint, l.leg.Verdict), l.leg.Why)
		writeLeg(b, paint, l.leg)
	}
}

// writeBackends writes the walks to where a Service leads.
func writeBackends(b *strings.Builder, paint painter, t *verdict.Trace) {
	for _, x := range t.Backends {
		fmt.Fprintf(b, "\nbackend %s port %d: %s: %s\n", at(x.Dst, x.DstAddr.String()), x.Port, paintWord(paint, x.Verdict),
			verdict.Decision{DecidedBy: x.DecidedBy, Reason: x.Reason}.Text())
		writeLegs(b, paint, x)
	}
}

// at adds the address to a name that isn't one.
func at(name, addr string) string {
	if strings.HasPrefix(name, "ip:") {
		return name
	}
	return name + " (" + addr + ")"
}

func writeLeg(b *strings.Builder, paint painter, l *verdict.Leg) {
	writeTiers(b, paint, l.Tiers)
	if l.Staged != nil {
		b.WriteString("  as if staged policies were in force:\n")
		writeTiers(b, paint, l.Staged)
	}
	for _, s := range l.Unbound {
		fmt.Fprintf(b, "  not about this pod: %s: %s\n", s.Policy, s.Why)
	}
}

func writeTiers(b *strings.Builder, paint painter, tiers []verdict.TierWalk) {
	for _, t := range tiers {
		fmt.Fprintf(b, "  tier %s: %s\n", t.Name, paintWord(paint, t.Outcome))
		for _, p := range t.Policies {
			name := p.Name
			if p.Namespace != "" {
				name = p.Namespace + "/" + p.Name
			}
			var notes []string
			if p.Isolates {
				notes = append(notes, "isolates")
			}
			if p.Rejected {
				notes = append(notes, "not valid: its rules don't hold")
			}
			if p.Staged {
				notes = append(notes, "staged: only reported")
			}
			if p.Audit {
				notes = append(notes, "audit: denials are only reported")
			}
			text := ""
			if len(notes) > 0 {
				text = " (" + strings.Join(notes, "; ") + ")"
			}
			fmt.Fprintf(b, "    %s %s%s\n", p.Kind, name, text)
			writeRules(b, paint, p.Rules)
		}
	}
}

func writeRules(b *strings.Builder, paint painter, rules []verdict.RuleWalk) {
	if len(rules) == 0 {
		b.WriteString("      no rules\n")
	}
	for _, r := range rules {
		if r.Matched {
			fmt.Fprintf(b, "    %s %s %s: %s\n", paint.paint(green, "→"), r.Rule, r.Action, strings.Join(r.Why, "; "))
			continue
		}
		fmt.Fprintf(b, "      %s %s: no match\n", r.Rule, r.Action)
		for _, why := range r.Why {
			fmt.Fprintf(b, "        %s\n", why)
		}
	}
}

func paintWord(p painter, verdict string) string {
	switch verdict {
	case "allow":
		return p.paint(green, verdict)
	case "deny":
		return p.paint(red, verdict)
	}
	return verdict
}
