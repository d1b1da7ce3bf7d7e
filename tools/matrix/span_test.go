package matrix_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/matrix"
	"github.com/sluice-net/sluice/tools/verdict"
)

// closed is two pods, of which b lets in what the rules say.
func closed(t *testing.T, rules string) *verdict.Cluster {
	t.Helper()
	const pods = `
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {app: b}}
status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  selector: app == 'b'
  types: [Ingress]
  ingress:
`
	path := filepath.Join(t.TempDir(), "m.yaml")
	if err := os.WriteFile(path, []byte(pods+rules), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := verdict.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil || len(c.State.Rejections) > 0 {
		t.Fatal(err, c.State.Rejections)
	}
	return c
}

// Types and codes of ICMP, and protocols that rules name, are told apart as ports are.
func TestProtocolsWithoutPorts(t *testing.T) {
	const (
		pings  = "  - {action: Allow, protocol: ICMP, icmp: {type: 8}}\n  - {action: Allow, protocol: ICMPv6, icmp: {type: 128}}\n"
		stamps = "  - {action: Allow, protocol: ICMP, icmp: {type: 13}}\n"
		code   = "  - {action: Allow, protocol: ICMP, icmp: {type: 3, code: 4}}\n"
		gre    = "  - {action: Allow, protocol: 47}\n"
		tcp    = "  - {action: Allow, protocol: TCP}\n"
		not    = "  - {action: Allow, notProtocol: ICMP}\n"
		all    = "  - {action: Allow}\n"
	)
	for _, c := range []struct{ rules, open, from string }{
		{pings + stamps, "ICMP/type8 ICMP/type13 ICMPv6/type128", pings},
		{gre + code, "ICMP/type3.4 IP/47", code},
		{tcp + gre, "TCP/all IP/47", tcp},
		{not, "TCP/all UDP/all SCTP/all IP/rest", all},
		{all, "all", all},
	} {
		t.Run(c.open, func(t *testing.T) {
			now := closed(t, c.rules)
			m, err := matrix.New(now, matrix.Default())
			if err != nil {
				t.Fatal(err)
			}
			var table bytes.Buffer
			if err := m.WriteTable(&table); err != nil {
				t.Fatal(err)
			}
			if got := m.Cells[0][1].Ports.String(); got != c.open {
				t.Errorf("open %s, want %s\n%s", got, c.open, &table)
			}
			d, err := matrix.Diff(closed(t, c.from), now)
			if err != nil {
				t.Fatal(err)
			}
			if d.Empty() != (c.from == c.rules) {
				t.Errorf("from\n%sto\n%schanges %+v", c.from, c.rules, d.Changes)
			}
		})
	}
	d, err := matrix.Diff(closed(t, pings+gre), closed(t, pings+stamps))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, ch := range d.Changes {
		if strings.HasPrefix(ch.From[0], "shop/a") {
			got = append(got, ch.Change+" "+strings.Join(ch.To, ",")+" "+ch.Ports.String())
		}
	}
	slices.Sort(got)
	want := []string{"closes shop/b (IPv4) IP/47", "closes shop/b (IPv6) IP/47", "opens shop/b (IPv4) ICMP/type13"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
