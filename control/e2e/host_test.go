package e2e_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/sluice-net/sluice/bench/netlab"
)

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func containsLine(text, part string) bool { return strings.Contains(text, part) }

// run runs a command in a namespace and returns its output.
func (n *node) run(ns *netlab.Namespace, name string, args ...string) string {
	n.Helper()
	var out strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Run(cmd); err != nil {
		n.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// ownLinks lists the host's links that are the agent's.
func (n *node) ownLinks() []string { return n.ownLinksThat(func(netlink.Link) bool { return true }) }

func (n *node) ownLinksThat(fit func(netlink.Link) bool) []string {
	n.Helper()
	var own []string
	must(n.T, n.net.Host().Do(func() error {
		links, err := netlink.LinkList()
		for errors.Is(err, netlink.ErrDumpInterrupted) { // links are changing
			links, err = netlink.LinkList()
		}
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "sluice") && fit(l) {
				own = append(own, l.Attrs().Name)
			}
		}
		return err
	}))
	return own
}
