package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/control"
	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/lab"
)

// agentFlags say which agent a command talks to.
type agentFlags struct {
	socket string
	lab    string
}

func (f *agentFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.socket, "socket", "", "the agent's Unix socket (default: "+control.Default().Socket+", or without an agent there that of the lab that is up)")
	nameLab(cmd, "lab", &f.lab, "", "talk to the agent of the lab of this name")
	cmd.MarkFlagsMutuallyExclusive("socket", "lab")
}

// path finds the socket.
func (f *agentFlags) path() (string, error) {
	if f.socket != "" {
		return f.socket, nil
	}
	usual := control.Default().Socket
	if f.lab == "" {
		c, err := net.DialTimeout("unix", usual, time.Second)
		if err == nil {
			return usual, c.Close()
		}
		if errors.Is(err, os.ErrPermission) {
			return "", fmt.Errorf("%w: the agent answers root only", err)
		}
	}
	state, err := lab.Find(f.lab)
	switch {
	case errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("%w: the agent answers root only", err)
	case errors.Is(err, lab.ErrNoLab) && f.lab == "":
		return "", fmt.Errorf("no agent answers at %s, and no lab is up", usual)
	case err != nil:
		return "", err
	}
	return state.Socket, nil
}

// client returns a client of the agent.
func (f *agentFlags) client() (*api.Client, error) {
	path, err := f.path()
	if err != nil {
		return nil, err
	}
	return api.NewClient(path), nil
}

// askPatience bounds how long an agent may take to answer.
const askPatience = 10 * time.Second
