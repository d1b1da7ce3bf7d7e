package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
)

func init() { commands = append(commands, newStatusCommand) }

func newStatusCommand() *cobra.Command {
	var agent agentFlags
	var output string
	forms := newFormats(statusTable)
	forms["wide"] = statusWide
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the agent of this node",
		Long: `Show the state of the agent: what it follows and how far it is in step with it,
which generation of rules is in force since when, the modes, programs and queues
that are really in use, how full flow tables and maps are, and what was dropped
for which reason. -o wide adds each watch, map and program.

The agent answers on a Unix socket: HTTP with JSON, version 1, read by root. The
same as here comes from "curl --unix-socket /run/sluice/sluice.sock
http://sluice/v1/status?maps=true"; /v1/endpoints, /v1/policies, /v1/wait and
/v1/flows are there as well.

Exit codes: 0 ready; 1 not ready, or no answer; 2 not understood.`,
		Example: `  sudo sluice status
  sudo sluice status -o json | jq '.maps[] | select(.used > 0.8)'
  sudo sluice status --lab lab`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := forms.check(output); err != nil {
				return err
			}
			client, err := agent.client()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), askPatience)
			defer cancel()
			s, err := client.FullStatus(ctx)
			if err != nil {
				return err
			}
			if err := forms[output](cmd.OutOrStdout(), s); err != nil {
				return err
			}
			if !s.Ready {
				return failed()
			}
			return nil
		},
	}
	agent.register(cmd)
	forms.register(cmd, &output)
	return cmd
}

func statusTable(out io.Writer, s api.Status) error {
	paint := painterFor(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	ready := paint.paint(green, "ready")
	if !s.Ready {
		ready = paint.paint(yellow, "not ready")
	}
	line("Agent", "%s, node %s, pid %d, up %s, %.0f MB of objects", ready, s.Node, s.PID, age(s.Started), float64(s.HeapBytes)/1e6)
	line("Source", "%s, %s", s.Source, syncText(&s))
	line("Knows", "%d policies, %d pods in %d namespaces, %d nodes, %d sets of labels",
		s.Objects.Policies, s.Objects.Pods, s.Objects.Namespaces, s.Objects.Nodes, s.Objects.Identities)
	line("Rules", "%s", rulesText(&s))
	line("Endpoints", "%d%s", s.Endpoints, pendingText(s.Pending))
	line("Mode", "%s", modeText(&s))
	for _, q := range s.Workers {
		line(fmt.Sprintf("Queue %d", q.ID), "%s", queueText(&q))
	}
	for _, u := range s.Uplinks {
		line("Uplink "+u.Name, "%s", uplinkText(&u))
	}
	if c := s.Services; c.Guarded+c.Closed > 0 {
		line("Services", "%d calls judged behind the host's NAT, %d closed", c.Guarded, c.Closed)
	}
	line("Flows", "%d of %d (%.1f %%)", s.Flows, s.FlowsMax, percent(s.Flows, s.FlowsMax))
	line("Maps", "%s", mapsText(s.Maps))
	line("Events", "%d, %d lost; %d of %d remembered", s.Events.Written, s.Events.Lost, s.Events.Held, s.Events.HeldMax)
	line("Drops", "%s", dropsText(s.Drops))
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range s.Rejected {
		fmt.Fprintln(out, paint.paint(yellow, "Rejected: "+rejectionText(&r)))
	}
	for _, n := range s.Notes {
		fmt.Fprintln(out, paint.paint(yellow, "Note: "+n))
	}
	return nil
}

func statusWide(out io.Writer, s api.Status) error {
	if err := statusTable(out, s); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if len(s.Watches) > 0 {
		fmt.Fprintln(w, "\nWATCH\tOBJECTS\tSYNCED\tIN STEP\tHEARD\tVERSION\tERROR")
	}
	for _, x := range s.Watches {
		inStep := "now"
		if !x.Healthy {
			inStep = age(x.Current) + " ago"
		}
		fmt.Fprintf(w, "%s\t%d\t%v\t%s\t%s ago\t%s\t%s\n", x.Resource, x.Objects, x.Synced, inStep, age(x.Heard), cmp.Or(x.Version, "-"), cmp.Or(x.Error, "-"))
	}
	fmt.Fprintln(w, "\nMAP\tTYPE\tENTRIES\tMAX\tUSED\tFULL")
	for _, m := range s.Maps {
		full := "refuses"
		if m.Evicts {
			full = "forgets the oldest"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.1f %%\t%s\n", m.Name, m.Type, m.Entries, m.Max, 100*m.Used, full)
	}
	fmt.Fprintln(w, "\nPROGRAM\tID\tTYPE\tTAG\tPOINT\tATTACHED")
	for _, p := range s.Loaded {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%d\n", p.Name, p.ID, p.Type, p.Tag, p.Point, p.Attached)
	}
	fmt.Fprintln(w, "\nPROGRAMS' COUNTERS\t")
	for _, name := range slices.Sorted(maps.Keys(s.Programs)) {
		fmt.Fprintf(w, "%s\t%d\n", name, s.Programs[name])
	}
	return w.Flush()
}

func syncText(s *api.Status) string {
	switch {
	case !s.Synced:
		return "not known in full yet: pods are isolated"
	case s.StaleMs > 0:
		return fmt.Sprintf("stale: not in step for %v; what was last known stays in force", time.Duration(s.StaleMs)*time.Millisecond)
	}
	return "in step"
}

func rulesText(s *api.Status) string {
	if s.Published.IsZero() {
		return "none in force yet"
	}
	return fmt.Sprintf("generation %d, in force for %s", s.Generation, age(s.Published))
}

func pendingText(pending []string) string {
	if len(pending) == 0 {
		return ""
	}
	const most = 5
	text := strings.Join(pending[:min(most, len(pending))], ", ")
	if len(pending) > most {
		text += fmt.Sprintf(" and %d more", len(pending)-most)
	}
	return "; no link found yet for " + text
}

func modeText(s *api.Status) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(s.Modes)) {
		parts = append(parts, k+" "+s.Modes[k])
	}
	offload, fail := "offload", "new flows are dropped without an agent"
	if !s.Offload {
		offload = "every packet through the workers"
	}
	if s.FailOpen {
		fail = "new flows pass without an agent"
	}
	return strings.Join(append(parts, offload, fail), ", ")
}

func queueText(q *api.Worker) string {
	if !q.Alive {
		return "not served: no sign of life for " + (time.Duration(q.BeatAgeMs) * time.Millisecond).String()
	}
	text := fmt.Sprintf("%s, %s, %d packets, %d bytes, %d flows", q.Port, q.Mode, q.Packets, q.Bytes, q.Flows)
	if q.CPU != nil {
		text += fmt.Sprintf(", on CPU %d", *q.CPU)
	}
	if q.RingDropped > 0 {
		text += fmt.Sprintf(", %d frames found it full", q.RingDropped)
	}
	return text
}

func mapsText(all []api.Map) string {
	if len(all) == 0 {
		return "-"
	}
	most := slices.MaxFunc(all, func(a, b api.Map) int { return cmp.Compare(a.Used, b.Used) })
	return fmt.Sprintf("%d, the fullest is %s: %d of %d (%.1f %%)", len(all), most.Name, most.Entries, most.Max, 100*most.Used)
}

func dropsText(drops map[string]uint64) string {
	if len(drops) == 0 {
		return "none"
	}
	var parts []string
	for _, reason := range slices.SortedFunc(maps.Keys(drops), func(a, b string) int {
		return cmp.Or(cmp.Compare(drops[b], drops[a]), cmp.Compare(a, b))
	}) {
		parts = append(parts, fmt.Sprintf("%d %s", drops[reason], reason))
	}
	return strings.Join(parts, ", ")
}

func rejectionText(r *api.Rejection) string {
	text := cmp.Or(r.Object, r.Source)
	if r.Field != "" {
		text += ": " + r.Field
	}
	return text + ": " + r.Reason + " (" + r.Effect + ")"
}

func percent(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }

// age is how long ago something was, as kubectl writes it.
func age(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// uplinkText says what is made of an uplink, and why not more.
func uplinkText(u *api.Uplink) string {
	if u.State != "on" {
		return u.State + ": " + u.Reason
	}
	var packets, lost uint64
	for _, q := range u.Queues {
		packets, lost = packets+q.Packets, lost+q.Lost
	}
	text := fmt.Sprintf("on, %d queues, %s, %d packets taken, %d lost", len(u.Queues), u.Mode, packets, lost)
	if u.Note != "" {
		text += " (" + u.Note + ")"
	}
	return text
}
