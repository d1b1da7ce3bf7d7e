package main

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"github.com/sluice-net/sluice/tools/connectivity"
)

// podCommands are what "connectivity test" runs in a cluster's pods.
func podCommands() []*cobra.Command {
	var listen, conf string
	var echo bool
	var family int
	serve := &cobra.Command{
		Use: "serve", Short: "Echo what TCP clients send", Hidden: true, Args: cobra.NoArgs,
		Example: "  sluice connectivity serve --listen :8080",
		RunE:    func(cmd *cobra.Command, _ []string) error { return connectivity.Serve(cmd.Context(), listen) },
	}
	serve.Flags().StringVar(&listen, "listen", ":8080", "where to listen")
	dial := &cobra.Command{
		Use: "dial ADDRESS:PORT", Short: "Try a TCP connection, and print what became of it as JSON", Hidden: true, Args: cobra.ExactArgs(1),
		Example: "  sluice connectivity dial 10.0.0.1:8080",
		RunE: func(cmd *cobra.Command, args []string) error {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(connectivity.Dial(cmd.Context(), args[0], echo))
		},
	}
	dial.Flags().BoolVar(&echo, "echo", true, "want what is sent to come back")
	resolve := &cobra.Command{
		Use: "resolve NAME", Short: "Ask a name server, and print what became of it as JSON", Hidden: true, Args: cobra.ExactArgs(1),
		Example: "  sluice connectivity resolve kubernetes.default.svc --family 4",
		RunE: func(cmd *cobra.Command, args []string) error {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(connectivity.Resolve(cmd.Context(), conf, args[0], family))
		},
	}
	resolve.Flags().StringVar(&conf, "resolv-conf", "/etc/resolv.conf", "file that names the servers")
	resolve.Flags().IntVar(&family, "family", 4, "4 or 6: of the server's address")
	return []*cobra.Command{serve, dial, resolve}
}

// worldAddrs reads --world: at most one address a family.
func worldAddrs(list []string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	seen := map[bool]bool{}
	for _, text := range list {
		if text == "" {
			continue
		}
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("--world: %w", err)
		}
		if seen[a.Addr().Is4()] {
			return nil, fmt.Errorf("--world: %s: a second address of its family", text)
		}
		seen[a.Addr().Is4()] = true
		out = append(out, a)
	}
	return out, nil
}
