package scenario

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// nftables is the kernel's own firewall as a policy engine would set it up:
// connection tracking, and one look-up in a verdict map for what is new.
var nftables = System{
	Name:  "nftables",
	About: "kernel forwarding, nftables: conntrack and a verdict map of 1000",
	Needs: func() error {
		_, err := exec.LookPath("nft")
		return err
	},
	Start: func(ctx context.Context, s *Stage) (Running, error) {
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		var stderr bytes.Buffer
		cmd.Stdin, cmd.Stderr = strings.NewReader(ruleset()), &stderr
		if err := s.Net.Host().Run(cmd); err != nil {
			return nil, errors.Join(fmt.Errorf("load nftables ruleset: %w", err), errors.New(stderr.String()))
		}
		return idle{}, nil // the rules go with the namespace
	},
}

// ruleset drops what is not allowed, as a default-deny policy does.
func ruleset() string {
	var v4 strings.Builder
	for i := range fillers {
		fmt.Fprintf(&v4, "      %s . %s . tcp : accept,\n", filler(i), addrsB[0])
	}
	pair := func(i int) string {
		return fmt.Sprintf("      %s . %s . tcp : accept, %[1]s . %[2]s . udp : accept", addrsA[i], addrsB[i])
	}
	return fmt.Sprintf(`table inet bench {
  map v4 {
    type ipv4_addr . ipv4_addr . inet_proto : verdict
    elements = {
%s%s
    }
  }
  map v6 {
    type ipv6_addr . ipv6_addr . inet_proto : verdict
    elements = {
%s
    }
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state new ip saddr . ip daddr . meta l4proto vmap @v4
    ct state new ip6 saddr . ip6 daddr . meta l4proto vmap @v6
  }
}
`, v4.String(), pair(0), pair(1))
}
