package suggest

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/tools/verdict"
)

// Check asks the engine of sluice verdict about each flow that the policies are
// from, in a cluster of the pods that were seen and of these policies alone. It
// is an error if one is not allowed.
func (r *Result) Check() error {
	dir, err := os.MkdirTemp("", "sluice-suggest-")
	if err != nil {
		return fmt.Errorf("check policies: %w", err)
	}
	defer os.RemoveAll(dir)
	var policies, cluster strings.Builder
	if err := r.YAML(&policies); err != nil {
		return fmt.Errorf("check policies: %w", err)
	}
	r.world(&cluster)
	for name, text := range map[string]string{"policies.yaml": policies.String(), "cluster.yaml": cluster.String()} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("check policies: %w", err)
		}
	}
	if cluster.Len() == 0 {
		return nil // no pods, no policies
	}
	c, err := verdict.Load(dir, nil)
	if err != nil {
		return fmt.Errorf("check policies: %w", err)
	}
	if len(c.State.Rejections) > 0 {
		return fmt.Errorf("check policies: %s", verdict.Fault(c.State.Rejections[0]))
	}
	var errs []error
	for _, conn := range r.proof() {
		proto, err := verdict.ParseProtocol(conn.proto)
		if err != nil {
			return fmt.Errorf("check policies: %w", err)
		}
		a := c.Answer(verdict.Query{Src: conn.src.String(), Dst: conn.dst.String(), Flow: verdict.Flow{Protocol: proto, Port: conn.port}})
		if a.Verdict != verdict.Allow {
			errs = append(errs, fmt.Errorf("check policies: %s: %s%s", conn, a.Error, verdict.Decision{DecidedBy: a.DecidedBy, Reason: a.Reason}.Text()))
		}
	}
	return errors.Join(errs...)
}

// world writes the pods and namespaces that were seen as manifests. An address
// that several pods have had is the last one's; the others get one that nobody
// has, as policies select them by their labels.
func (r *Result) world(b *strings.Builder) {
	taken := map[netip.Addr]bool{}
	for _, p := range r.parties {
		if !p.isPod() {
			taken[p.addrs[0]] = true
		}
	}
	spare := netip.MustParseAddr("100.127.0.1")
	spare6 := netip.MustParseAddr("fd00:51:1ce::1")
	free := func(a netip.Addr) netip.Addr {
		next := &spare
		if a.Is6() {
			next = &spare6
		}
		for taken[a] {
			a, *next = *next, next.Next()
		}
		taken[a] = true
		return a
	}
	namespaces := map[string]map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(r.parties)) {
		p := r.parties[name]
		if !p.isPod() {
			continue
		}
		if namespaces[p.namespace] == nil {
			namespaces[p.namespace] = map[string]string{}
		}
		maps.Copy(namespaces[p.namespace], p.nsLabels)
		fmt.Fprintf(b, "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: %s\n", scalar(p.pod), scalar(p.namespace))
		if len(p.labels) > 0 {
			b.WriteString("  labels:\n")
			writeLabels(b, "    ", p.labels)
		}
		b.WriteString("spec:\n  containers:\n  - {name: main, image: none}\nstatus:\n  phase: Running\n  podIPs:\n")
		for _, is6 := range []bool{false, true} {
			of := slices.DeleteFunc(slices.Clone(p.addrs), func(a netip.Addr) bool { return a.Is6() != is6 })
			if len(of) > 0 {
				fmt.Fprintf(b, "  - ip: %s\n", scalar(free(of[len(of)-1]).String()))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(namespaces)) {
		labels := namespaces[name]
		labels["kubernetes.io/metadata.name"] = name
		fmt.Fprintf(b, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels:\n", scalar(name))
		writeLabels(b, "    ", labels)
	}
}
