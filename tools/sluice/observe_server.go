package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/lab"
	"github.com/sluice-net/sluice/tools/observe"
)

// flowServer says where flows come from: an agent of this machine, or any
// server of Hubble's API.
type flowServer struct {
	socket, lab string
	hubble      observe.Server
}

func (s *flowServer) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.socket, "socket", "", "socket of the agent (default: this node's, else that of the lab that is up)")
	flags.StringVar(&s.lab, "lab", "", "name of a lab, to ask its agent")
	flags.StringVar(&s.hubble.Address, "server", "", "server of Hubble's API instead, another node's or a relay: HOST:PORT, tls://HOST:PORT or unix:///PATH")
	flags.BoolVar(&s.hubble.TLS, "tls", false, "speak TLS with --server")
	flags.BoolVar(&s.hubble.AllowInsecure, "tls-allow-insecure", false, "don't check the server's certificate")
	flags.StringSliceVar(&s.hubble.CAs, "tls-ca-cert-files", nil, "files of the authorities that the server's certificate is checked by")
	flags.StringVar(&s.hubble.Cert, "tls-client-cert-file", "", "file of the client's certificate")
	flags.StringVar(&s.hubble.Key, "tls-client-key-file", "", "file of its key")
	flags.StringVar(&s.hubble.Name, "tls-server-name", "", "name that the server's certificate must have")
	cmd.MarkFlagsMutuallyExclusive("socket", "lab", "server")
	cmd.MarkFlagsRequiredTogether("tls-client-cert-file", "tls-client-key-file")
	cmd.RegisterFlagCompletionFunc("lab", completeLabs)
}

func completeLabs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	live, _ := lab.Live() // without labs there is nothing to complete
	var names []string
	for _, s := range live {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// flowSource is a server that was found.
type flowSource struct {
	observerpb.ObserverClient
	agent *api.Client // its own API, or nil
	close func() error
}

// statusPatience is how long an agent may take to say where it serves flows.
const statusPatience = 5 * time.Second

func (s *flowServer) open(ctx context.Context) (*flowSource, error) {
	src := &flowSource{}
	if s.hubble.Address == "" {
		path, err := s.find()
		if err != nil {
			return nil, err
		}
		limit, cancel := context.WithTimeout(ctx, statusPatience)
		defer cancel()
		agent := api.NewClient(path)
		switch status, err := agent.Status(limit); {
		case err == nil && status.Hubble == "":
			return nil, fmt.Errorf("the agent at %s serves no flows: its configuration has no hubble.socket", path)
		case err == nil:
			src.agent, s.hubble.Address = agent, "unix://"+status.Hubble
		case !dials(path):
			return nil, err
		default: // it may be the socket of Hubble's API itself
			s.hubble.Address = "unix://" + path
		}
	}
	conn, err := s.hubble.Dial()
	if err != nil {
		return nil, usageError(err)
	}
	src.ObserverClient, src.close = observerpb.NewObserverClient(conn), conn.Close
	return src, nil
}

func dials(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// find returns the socket of the agent that is meant.
func (s *flowServer) find() (string, error) {
	if s.socket != "" {
		return s.socket, nil
	}
	node := control.Default().Socket
	if s.lab == "" && dials(node) {
		return node, nil
	}
	state, err := lab.Find(s.lab)
	switch {
	case err == nil:
		return state.Socket, nil
	case s.lab == "" && errors.Is(err, lab.ErrNoLab):
		return "", fmt.Errorf("no agent answers at %s, and no lab is up", node)
	}
	return "", err
}

// needAgent is for what Hubble's API has no question for.
func (s *flowSource) needAgent(flag string) error {
	if s.agent == nil {
		return usageError(fmt.Errorf("--%s: needs an agent's own socket, not a server of Hubble's API", flag))
	}
	return nil
}
