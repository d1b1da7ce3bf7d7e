package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/lab"
)

// labStatus is what "lab status -o json" prints.
type labStatus struct {
	*lab.State
	Agent      *api.Status     `json:"agent"` // null if it doesn't answer
	AgentError string          `json:"agentError,omitempty"`
	Endpoints  []*api.Endpoint `json:"endpoints"` // as the agent has them
}

func newLabStatusCommand() *cobra.Command {
	var name, output string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show a lab: its pods, where they are, and its agent",
		Example: "  sluice lab status\n  sluice lab status -o json | jq -r '.pods[].netns'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError(fmt.Errorf("--output=%s: want table or json", output))
			}
			if err := needRoot(); err != nil {
				return err
			}
			state, err := lab.Find(name)
			if err != nil {
				return err
			}
			status := askAgent(cmd.Context(), state)
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(status)
			}
			return status.table(cmd.OutOrStdout())
		},
	}
	nameFlag(cmd, &name, "", findUsage)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func askAgent(ctx context.Context, state *lab.State) *labStatus {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s := &labStatus{State: state, Endpoints: []*api.Endpoint{}}
	client := api.NewClient(state.Socket)
	agent, err := client.Status(ctx)
	if err != nil {
		s.AgentError = err.Error()
		return s
	}
	s.Agent = &agent
	endpoints, err := client.Endpoints(ctx)
	if err != nil {
		s.AgentError = err.Error()
	}
	for i := range endpoints {
		s.Endpoints = append(s.Endpoints, &endpoints[i])
	}
	return s
}

// enforcement says what the agent does about a pod.
func (s *labStatus) enforcement(p *lab.Pod) string {
	if p.HostNetwork {
		return "host network"
	}
	for _, e := range s.Endpoints {
		if e.Namespace == p.Namespace && e.Pod == p.Name {
			return e.State
		}
	}
	return "unknown"
}

func (s *labStatus) table(out io.Writer) error {
	paint := painterFor(out)
	offload := "off"
	if s.Offload {
		offload = "on"
	}
	fmt.Fprintf(out, "Lab %s, up since %s (pid %d): %s, MTU %d, offload %s, from %s\n",
		s.Name, s.Started.Format(time.TimeOnly), s.PID, s.CNI, s.MTU, offload, s.Manifests)
	switch {
	case s.Agent == nil:
		fmt.Fprintln(out, paint.paint(red, "Agent: "+s.AgentError))
	case s.Agent.Ready:
		fmt.Fprintf(out, "Agent: %s (pid %d), generation %d, %d pods, %d flows\n",
			paint.paint(green, "ready"), s.Agent.PID, s.Agent.Generation, s.Agent.Endpoints, s.Agent.Flows)
	default:
		fmt.Fprintf(out, "Agent: %s (pid %d)\n", paint.paint(yellow, "not ready"), s.Agent.PID)
	}
	for _, m := range s.Messages {
		fmt.Fprintln(out, paint.paint(yellow, m))
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POD\tREADY\tENFORCED\tADDRESSES\tPORTS\tLINK\tNETNS")
	for i := range s.Pods {
		p := &s.Pods[i]
		ready := "no"
		if p.Ready {
			ready = "yes"
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Namespace, p.Name, ready, s.enforcement(p),
			join(p.Addresses), cmp.Or(join(p.Ports), "-"), cmp.Or(p.Link, "-"), p.Netns)
	}
	for _, e := range s.Externals {
		fmt.Fprintf(w, "ip:%s\t-\texternal\t%s\t-\t-\t%s\n", e.Address, e.Address, e.Netns)
	}
	return w.Flush()
}

func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, ",")
}
