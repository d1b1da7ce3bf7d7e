package chain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/sluice-net/sluice/tools/chain"
)

// Configurations as the CNIs that people run write them.
var lists = map[string]string{
	"10-calico.conflist": `{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "calico", "log_level": "info", "datastore_type": "kubernetes", "nodename": "n1", "mtu": 0,
     "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"},
     "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}},
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}`,
	"10-flannel.conflist": `{"name":"cbr0","cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}},{"type":"portmap","capabilities":{"portMappings":true}}]}` + "\n",
	"10-kindnet.conflist": `
{
	"cniVersion": "0.3.1",
	"name": "kindnet",
	"plugins": [
	{"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state",
	  "routes": [{ "dst": "0.0.0.0/0" }], "ranges": [[{ "subnet": "10.244.0.0/24" }]]}, "mtu": 1500},
	{"type": "portmap", "capabilities": {"portMappings": true}}
	]
}`,
}

const single = `{"cniVersion": "0.4.0", "name": "bridge", "type": "bridge", "bridge": "cni0", "isGateway": true,
 "ipam": {"type": "host-local", "subnet": "10.22.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}`

// node is a folder with what a node has.
func node(t *testing.T, files map[string]string) chain.Options {
	t.Helper()
	dir := t.TempDir()
	o := chain.Options{BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"), Binary: filepath.Join(dir, "plugin")}
	must(t, os.Mkdir(o.ConfDir, 0o755))
	must(t, os.WriteFile(o.Binary, []byte("binary"), 0o644))
	for name, data := range files {
		must(t, os.WriteFile(filepath.Join(o.ConfDir, name), []byte(data), 0o640))
	}
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// types returns the plugins of the configuration that the reference
// implementation picks.
func types(t *testing.T, o chain.Options) (types []string) {
	t.Helper()
	files, err := libcni.ConfFiles(o.ConfDir, []string{".conf", ".conflist", ".json"})
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no configuration is left")
	}
	l := &libcni.NetworkConfigList{}
	if strings.HasSuffix(files[0], ".conflist") {
		l, err = libcni.ConfListFromFile(files[0])
		must(t, err)
	} else {
		c, err := libcni.ConfFromFile(files[0])
		must(t, err)
		l.Plugins = []*libcni.NetworkConfig{c}
	}
	for _, p := range l.Plugins {
		types = append(types, p.Network.Type)
	}
	return types
}

// contents reads a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		all[e.Name()] = string(data)
	}
	return all
}

func TestLists(t *testing.T) {
	for name, data := range lists {
		t.Run(name, func(t *testing.T) {
			o := node(t, map[string]string{name: data, "99-loopback.conf": `{"type":"loopback","name":"lo","cniVersion":"1.0.0"}`})
			before, was := contents(t, o.ConfDir), types(t, o)
			must(t, chain.Install(o))
			if got := types(t, o); fmt.Sprint(got) != fmt.Sprint(append(was, chain.Plugin)) {
				t.Errorf("plugins %v, want ours behind %v", got, was)
			}
			first := contents(t, o.ConfDir)
			must(t, chain.Install(o))
			if again := contents(t, o.ConfDir); fmt.Sprint(again) != fmt.Sprint(first) {
				t.Errorf("a second time changes something:\n%v\n%v", first, again)
			}
			o.Entry = map[string]any{"onAgentAway": "closed"}
			must(t, chain.Install(o))
			if !strings.Contains(contents(t, o.ConfDir)[name], `"closed"`) {
				t.Error("a changed entry is not taken over")
			}
			st, err := os.Stat(filepath.Join(o.ConfDir, name))
			must(t, err)
			if st.Mode().Perm() != 0o640 {
				t.Errorf("mode %v", st.Mode())
			}
			must(t, chain.Uninstall(o))
			if after := contents(t, o.ConfDir); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("not as before:\n%v\n%v", before, after)
			}
			if _, err := os.Stat(filepath.Join(o.BinDir, chain.Plugin)); err == nil {
				t.Error("the binary is left")
			}
			must(t, chain.Uninstall(o))
		})
	}
}

func TestSingle(t *testing.T) {
	for _, name := range []string{"10-bridge.conf", "10-bridge.json"} {
		o := node(t, map[string]string{name: single})
		before := contents(t, o.ConfDir)
		for range 2 {
			must(t, chain.Install(o))
			if got := fmt.Sprint(types(t, o)); got != "[bridge sluice-cni]" {
				t.Errorf("plugins %s", got)
			}
		}
		var l struct {
			Plugins []map[string]any `json:"plugins"`
		}
		must(t, json.Unmarshal([]byte(contents(t, o.ConfDir)["10-bridge.conflist"]), &l))
		if l.Plugins[0]["bridge"] != "cni0" || l.Plugins[0]["isGateway"] != true {
			t.Errorf("settings got lost: %v", l.Plugins[0])
		}
		must(t, chain.Uninstall(o))
		if after := contents(t, o.ConfDir); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("not as before:\n%v\n%v", before, after)
		}
	}
}

// TestChangedSince rewrites the configuration after the installation, as a CNI
// does when it is upgraded: its changes stay, whether our call is in or not.
func TestChangedSince(t *testing.T) {
	const name = "10-calico.conflist"
	for _, keeps := range []bool{true, false} {
		o := node(t, map[string]string{name: lists[name]})
		file := filepath.Join(o.ConfDir, name)
		must(t, chain.Install(o))
		from := lists[name]
		if keeps {
			from = contents(t, o.ConfDir)[name]
		}
		must(t, os.WriteFile(file, []byte(strings.ReplaceAll(from, `"info"`, `"debug"`)), 0o640))
		if !keeps {
			must(t, chain.Install(o))
		}
		if got := fmt.Sprint(types(t, o)); got != "[calico portmap bandwidth sluice-cni]" {
			t.Errorf("keeps %t: plugins %s", keeps, got)
		}
		must(t, chain.Uninstall(o))
		if got := contents(t, o.ConfDir); !strings.Contains(got[name], `"debug"`) || strings.Contains(got[name], chain.Plugin) || len(got) != 1 {
			t.Errorf("keeps %t: %v", keeps, got)
		}
	}
}

// TestSingleChangedSince has others write, after a list was made of a single
// configuration: the CNI a list of its own, or an administrator into the one that is
// there. Theirs stays, and the single one doesn't come back.
func TestSingleChangedSince(t *testing.T) {
	const name = "10-bridge.conflist"
	for what, theirs := range map[string]func(ours string) string{
		"a list of its own": func(string) string { return strings.Replace(lists["10-flannel.conflist"], "cbr0", "changed", 1) },
		"the list edited":   func(ours string) string { return strings.Replace(ours, "cni0", "changed", 1) },
	} {
		o := node(t, map[string]string{"10-bridge.conf": single})
		must(t, chain.Install(o))
		must(t, os.WriteFile(filepath.Join(o.ConfDir, name), []byte(theirs(contents(t, o.ConfDir)[name])), 0o640))
		must(t, chain.Install(o))
		must(t, chain.Uninstall(o))
		if got := contents(t, o.ConfDir); len(got) != 1 || !strings.Contains(got[name], "changed") || strings.Contains(got[name], chain.Plugin) {
			t.Errorf("%s: left %v", what, got)
		}
	}
}

// TestBoth has a list lie beside the single configuration of its name, which comes
// first: it is there again after the plugin.
func TestBoth(t *testing.T) {
	o := node(t, map[string]string{"10-bridge.conf": single, "10-bridge.conflist": lists["10-flannel.conflist"]})
	before := contents(t, o.ConfDir)
	for _, away := range []string{"fail", "closed"} {
		o.Entry = map[string]any{"onAgentAway": away}
		must(t, chain.Install(o))
		if got := fmt.Sprint(types(t, o)); got != "[bridge sluice-cni]" {
			t.Errorf("plugins %s", got)
		}
	}
	// The CNI writes its configuration anew.
	must(t, os.WriteFile(filepath.Join(o.ConfDir, "10-bridge.conf"), []byte(single), 0o640))
	must(t, chain.Install(o))
	must(t, chain.Uninstall(o))
	if after := contents(t, o.ConfDir); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("not as before:\n%v\n%v", before, after)
	}
}

// TestConcurrent installs while the owner of the configuration writes versions
// of its own, by rename, and readers read. No reader sees anything but a whole
// list, and the owner's last version is never lost.
func TestConcurrent(t *testing.T) {
	const name = "10-flannel.conflist"
	o := node(t, map[string]string{name: lists[name]})
	file := filepath.Join(o.ConfDir, name)
	done := make(chan struct{})
	var wg sync.WaitGroup
	last := ""
	wg.Go(func() {
		defer close(done)
		for i := range 300 {
			last = fmt.Sprintf("version-%d", i)
			data := strings.Replace(lists[name], "cbr0", last, 1)
			if err := errors.Join(os.WriteFile(file+".tmp", []byte(data), 0o640), os.Rename(file+".tmp", file)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for {
			if _, err := libcni.ConfListFromFile(file); err != nil {
				t.Errorf("reader: %v", err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for {
				if err := chain.Install(o); err != nil && !strings.Contains(err.Error(), "others keep changing") {
					t.Errorf("install: %v", err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	must(t, chain.Install(o))
	data, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Contains(data, []byte(last)) || !bytes.Contains(data, []byte(chain.Plugin)) {
		t.Errorf("want %s with our call: %s", last, data)
	}
	must(t, chain.Uninstall(o))
	if got := contents(t, o.ConfDir); len(got) != 1 || !strings.Contains(got[name], last) {
		t.Errorf("left: %v", got)
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ file, data, want string }{
		"none":       {"README", "", "no network configuration"},
		"no JSON":    {"10-x.conflist", "{", "decode"},
		"no plugins": {"10-x.conflist", `{"name":"x","cniVersion":"1.0.0","plugins":[]}`, "no plugins"},
		"only ours":  {"10-x.conflist", `{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"sluice-cni"}]}`, "no other plugin"},
		"old":        {"10-x.conflist", `{"name":"x","cniVersion":"0.2.0","plugins":[{"type":"ptp"}]}`, "chained"},
		"no version": {"10-x.conf", `{"name":"x","type":"ptp"}`, "chained"},
		"no name":    {"10-x.conf", `{"type":"ptp","cniVersion":"1.0.0"}`, "no name"},
	} {
		o := node(t, map[string]string{c.file: c.data})
		err := chain.Install(o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q in it", name, err, c.want)
		}
		if got := contents(t, o.ConfDir); len(got) != 1 || got[c.file] != c.data {
			t.Errorf("%s: changed to %v", name, got)
		}
	}
	o := node(t, nil)
	if err := chain.Install(o); !errors.Is(err, chain.ErrNoConfig) {
		t.Errorf("error %v, want ErrNoConfig", err)
	}
}
