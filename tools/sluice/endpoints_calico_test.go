package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/api"
)

func TestEndpointsCalico(t *testing.T) {
	list := []api.Endpoint{
		{Namespace: "shop", Pod: "web", Link: "cali0a", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}},
		{Namespace: "ops", Pod: "prometheus-0", Link: "cali0b", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
	}
	for namespaces, want := range map[bool]string{
		true: `NAMESPACE   WORKLOAD       NODE   NETWORKS                  INTERFACE
shop        web            n1     10.0.0.1/32,fd00::1/128   cali0a
ops         prometheus-0   n1     10.0.0.2/32               cali0b
`,
		false: `WORKLOAD       NODE   NETWORKS                  INTERFACE
web            n1     10.0.0.1/32,fd00::1/128   cali0a
prometheus-0   n1     10.0.0.2/32               cali0b
`,
	} {
		var b strings.Builder
		if err := endpointsCalico(&b, list, "n1", namespaces); err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		for line := range strings.Lines(b.String()) {
			got.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
		if got.String() != want {
			t.Errorf("namespaces %v: got\n%s\nwant\n%s", namespaces, got.String(), want)
		}
	}
}
