package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/sluice-net/sluice/control/api"
)

// endpointsCalico prints pods as calicoctl get workloadendpoints does, column
// for column; namespaces are shown as with its --all-namespaces.
func endpointsCalico(out io.Writer, list []api.Endpoint, node string, namespaces bool) error {
	w := tabwriter.NewWriter(out, 5, 1, 3, ' ', 0)
	columns := []string{"NAMESPACE", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE"}
	row := func(cells ...string) {
		if !namespaces {
			cells = cells[1:]
		}
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	row(columns...)
	for _, e := range list {
		networks := make([]string, len(e.Addresses))
		for i, a := range e.Addresses {
			networks[i] = netip.PrefixFrom(a, a.BitLen()).String()
		}
		row(e.Namespace, e.Pod, node, strings.Join(networks, ","), e.Link)
	}
	return w.Flush()
}
