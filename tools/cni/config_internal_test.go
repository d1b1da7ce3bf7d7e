package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/sluice-net/sluice/tools/chain"
)

// TestVersions installs the plugin into lists of all versions that are chained into,
// and wants it to serve each, and to find the pod's addresses in it.
func TestVersions(t *testing.T) {
	for _, v := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		dir := t.TempDir()
		o := chain.Options{BinDir: filepath.Join(dir, "bin"), ConfDir: dir, Binary: "plugin.go"}
		list := fmt.Sprintf(`{"cniVersion":%q,"name":"x","plugins":[{"type":"ptp"}]}`, v)
		if err := os.WriteFile(filepath.Join(dir, "10-x.conflist"), []byte(list), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := chain.Install(o); err != nil {
			t.Errorf("%s: %v", v, err)
		}
		if !slices.Contains(versions.SupportedVersions(), v) {
			t.Errorf("%s is chained into, and not served", v)
		}
		family := `"version":"4",`
		if v >= "1" {
			family = ""
		}
		c, bad := parse(fmt.Appendf(nil, `{"cniVersion":%q,"name":"x","type":"sluice-cni","prevResult":{"cniVersion":%q,
			"interfaces":[{"name":"veth"},{"name":"eth0","sandbox":"/run/netns/x"}],"ips":[{%s"interface":1,"address":"10.0.0.7/24"}]}}`, v, v, family))
		if bad != nil {
			t.Errorf("%s: %v", v, bad)
			continue
		}
		prev, err := current.NewResultFromResult(c.PrevResult)
		if err != nil {
			t.Errorf("%s: %v", v, err)
		} else if got := fmt.Sprint(addresses(prev, "eth0")); got != "[10.0.0.7]" {
			t.Errorf("%s: addresses %s", v, got)
		}
	}
}
