package doctor_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/tools/doctor"
)

// machine writes a machine's files below a folder. A value that begins with
// "-> " is a symbolic link.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const goodConfig = "CONFIG_BPF_SYSCALL=y\nCONFIG_BPF_JIT=y\nCONFIG_NET_CLS_ACT=y\nCONFIG_XDP_SOCKETS=y\nCONFIG_VETH=m\n" +
	"CONFIG_NET_CLS_BPF=m\nCONFIG_NET_SCH_INGRESS=m\nCONFIG_DEBUG_INFO_BTF=y\nCONFIG_HUGETLBFS=y\n" +
	"CONFIG_NETFILTER_NETLINK_LOG=m\nCONFIG_NFT_LOG=m\nCONFIG_NFT_LIMIT=m\n"

// TestFindings examines machines made of files.
func TestFindings(t *testing.T) {
	card := func(driver string, rx int) map[string]string {
		m := map[string]string{
			"sys/class/net/eth9/operstate": "up\n", "sys/class/net/eth9/mtu": "1500\n",
			"sys/class/net/eth9/device/driver": "-> ../../../../bus/pci/drivers/" + driver,
			"sys/class/net/eth9/queues/tx-0/x": "",
		}
		for i := range rx {
			m["sys/class/net/eth9/queues/rx-"+string(rune('0'+i))+"/x"] = ""
		}
		return m
	}
	with := func(release string, more ...map[string]string) map[string]string {
		m := map[string]string{"proc/sys/kernel/osrelease": release + "\n", "boot/config-" + release: goodConfig}
		for _, x := range more {
			for k, v := range x {
				m[k] = v
			}
		}
		return m
	}
	conflist := func(plugins string) map[string]string {
		return map[string]string{"etc/cni/net.d/10-pods.conflist": `{"cniVersion": "1.0.0", "name": "pods", "plugins": [` + plugins + `]}`}
	}
	bin := map[string]string{"opt/cni/bin/sluice-cni": "x"}
	irqs := func(cpus ...string) map[string]string {
		m := map[string]string{}
		for i, cpu := range cpus {
			n := string(rune('1' + i))
			m["sys/class/net/eth9/device/msi_irqs/"+n] = "msix"
			m["proc/irq/"+n+"/effective_affinity_list"] = cpu + "\n"
		}
		return m
	}
	for _, c := range []struct {
		name       string
		files      map[string]string
		area, what string
		level      doctor.Level
		text       string
	}{
		{"recent", with("6.18.1"), "kernel", "release", doctor.OK, "6.18.1"},
		{"before tcx", with("6.1.0-18-amd64"), "kernel", "release", doctor.Warn, "clsact"},
		{"too old", with("5.10.0"), "kernel", "release", doctor.Fault, "5.15"},
		{"no number", with("unknown"), "kernel", "release", doctor.Warn, "two numbers"},
		{"no patch level", with("6.12-rc3"), "kernel", "release", doctor.OK, "6.12"},
		{"all options", with("6.12.1"), "kernel", "configuration", doctor.OK, "12 options"},
		{"no AF_XDP", with("6.12.1", map[string]string{"boot/config-6.12.1": strings.ReplaceAll(goodConfig, "CONFIG_XDP_SOCKETS=y", "# CONFIG_XDP_SOCKETS is not set")}),
			"kernel", "CONFIG_XDP_SOCKETS", doctor.Fault, "AF_XDP"},
		{"zero-copy", with("6.12.1", card("ice", 4)), "nic", "eth9", doctor.OK, "4 rx queues, 1 tx queue; XDP native, zero-copy"},
		{"not yet zero-copy", with("6.1.1", card("virtio_net", 1)), "nic", "eth9", doctor.Warn, "6.14"},
		{"virtio, no DMA addresses", with("6.18.1", card("virtio_net", 1), map[string]string{"sys/class/net/eth9/device/features": strings.Repeat("1", 33) + "0" + strings.Repeat("0", 30)}),
			"nic", "eth9", doctor.Info, "iommu_platform=on"},
		{"virtio, DMA addresses", with("6.18.1", card("virtio_net", 1), map[string]string{"sys/class/net/eth9/device/features": strings.Repeat("1", 34)}),
			"nic", "eth9", doctor.OK, "zero-copy"},
		{"zero-copy, jumbo", with("6.12.1", card("ice", 1), map[string]string{"sys/class/net/eth9/mtu": "9000\n"}), "nic", "eth9", doctor.OK, "3840 bytes at most"},
		{"zero-copy, large frames", with("6.12.1", card("ice", 1), map[string]string{"sys/class/net/eth9/mtu": "2000\n"}), "nic", "eth9", doctor.OK, "frameSize: 4096"},
		{"native", with("6.12.1", card("ena", 1)), "nic", "eth9", doctor.Info, "XDP native, copy"},
		{"generic", with("6.12.1", card("r8169", 1)), "nic", "eth9", doctor.Info, "generic"},
		{"bond", with("6.12.1", map[string]string{"sys/class/net/bond0/bonding/slaves": "eth0 eth1\n"}), "nic", "bond0", doctor.Info, "name its members"},
		{"interrupts on one CPU", with("6.12.1", card("ice", 2), irqs("3", "3")), "nic", "eth9 interrupts", doctor.Warn, "all 2 on CPU 3"},
		{"interrupts spread", with("6.12.1", card("ice", 2), irqs("0", "1")), "nic", "eth9 interrupts", doctor.OK, "2 on 2 CPUs"},
		{"chained", with("6.12.1", conflist(`{"type": "ptp"}, {"type": "sluice-cni"}`), bin), "cni", "10-pods.conflist", doctor.OK, "ptp → sluice-cni"},
		{"not chained", with("6.12.1", conflist(`{"type": "bridge"}`)), "cni", "10-pods.conflist", doctor.Warn, "chain sluice-cni"},
		{"not installed", with("6.12.1", conflist(`{"type": "ptp"}, {"type": "sluice-cni"}`)), "cni", "sluice-cni", doctor.Fault, "/opt/cni/bin"},
		{"not veth", with("6.12.1", conflist(`{"type": "ipvlan"}, {"type": "sluice-cni"}`), bin), "cni", "10-pods.conflist", doctor.Fault, "veth pairs only"},
		{"another judge", with("6.12.1", conflist(`{"type": "calico"}`)), "cni", "calico", doctor.Warn, "both must allow"},
		{"broken", with("6.12.1", conflist(`{`)), "cni", "10-pods.conflist", doctor.Fault, "decode"},
		{"empty", with("6.12.1", conflist(``)), "cni", "10-pods.conflist", doctor.Fault, "no plugin"},
		{"JIT off", with("6.12.1", map[string]string{"proc/sys/net/core/bpf_jit_enable": "0\n"}), "limits", "BPF compiler", doctor.Warn, "bpf_jit_enable=1"},
		{"few capabilities", with("6.12.1", map[string]string{"proc/self/status": "Name:\tx\nCapEff:\t0000000000001000\n"}), "limits", "capabilities", doctor.Warn, "lacks CAP_NET_RAW"},
		{"capabilities of the manifests", with("6.12.1", map[string]string{"proc/self/status": "Name:\tx\nCapEff:\t0000000000207000\n"}), "limits", "capabilities", doctor.OK, "all"},
		{"no bpffs", with("6.12.1"), "bpffs", "/tmp/sluice-no-bpffs", doctor.Fault, "mount -t bpf"},
		{"no agent", with("6.12.1"), "agent", "status", doctor.Info, "no agent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := doctor.Examine(t.Context(), doctor.Options{Root: machine(t, c.files), PinPath: "/tmp/sluice-no-bpffs", Socket: "/no/such.sock"})
			for _, f := range r.Findings {
				if f.Area == c.area && f.Name == c.what {
					if f.Level != c.level || !strings.Contains(f.Value+" "+f.Advice, c.text) {
						t.Errorf("%+v, want %s with %q", f, c.level, c.text)
					}
					return
				}
			}
			t.Errorf("no finding %s %s in %+v", c.area, c.what, r.Findings)
		})
	}
}

// TestBlank sees which texts are secrets.
func TestBlank(t *testing.T) {
	for in, want := range map[string]string{
		"token: abc.def":                                                            "token: [blanked]",
		`"clientSecret": "x y", "node": "a"`:                                        `"clientSecret": [blanked], "node": "a"`,
		"err=x password=hunter2 pod=a/b":                                            "err=x password=[blanked] pod=a/b",
		"Authorization: Bearer abcdef":                                              "Authorization: Bearer [blanked]",
		"seen eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrIn0.c2ln z":                          "seen [blanked] z",
		"nodeName: worker-1\nworkers: 4":                                            "nodeName: worker-1\nworkers: 4",
		"-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nrest": "[blanked]\nrest",
		"-----BEGIN EC PRIVATE KEY-----\ncut off":                                   "[blanked]",
		"password: correct horse battery\nb: 1":                                     "password: [blanked]\nb: 1",
		"a:\n  token: |\n    x\n\n    y\n  b: 1\n":                                  "a:\n  token: [blanked]\n  b: 1\n",
		"tokens:\n- x\n- y\nb: 1\n":                                                 "tokens: [blanked]\nb: 1\n",
		"- clientSecrets: [x, y]\n  b: 1\n- c: 2\n":                                 "- clientSecrets: [blanked]\n  b: 1\n- c: 2\n",
		`{"password":"a\"b","n":1}`:                                                 `{"password":[blanked],"n":1}`,
		"Authorization: Basic dXNlcjpwYXNz":                                         "Authorization: Basic [blanked]",
	} {
		if got := string(doctor.Blank([]byte(in))); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestDump writes an archive and looks into it.
func TestDump(t *testing.T) {
	dir := t.TempDir()
	config, log := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "agent.log")
	must(t, os.WriteFile(config, []byte("nodeName: w\napiToken: verysecret\n"), 0o600))
	must(t, os.WriteFile(log, []byte("level=INFO password=verysecret msg=x\n"), 0o600))
	t.Setenv("SLUICE_TEST_SECRET", "verysecret")
	file := filepath.Join(dir, "dump.tar.gz")
	o := doctor.DumpOptions{Options: doctor.Options{PinPath: "/no/pins", Socket: "/no/such.sock"}, Version: "v0", Config: config, Log: log}
	n, err := doctor.Dump(t.Context(), file, o)
	must(t, err)
	st, err := os.Stat(file)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	zip, err := gzip.NewReader(f)
	must(t, err)
	var names []string
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		names = append(names, strings.TrimPrefix(h.Name, "sluice-sysdump/"))
		data, err := io.ReadAll(in)
		must(t, err)
		if strings.Contains(string(data), "verysecret") {
			t.Errorf("%s has a secret", h.Name)
		}
	}
	if len(names) != n {
		t.Errorf("%d files, said %d", len(names), n)
	}
	for _, want := range []string{"version.txt", "doctor.json", "agent/config.yaml", "agent/log.txt", "files/proc/version", "errors.txt",
		"net/links.json", "net/addresses.json", "net/routes.json", "net/rules.json", "net/neighbours.json"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %v", want, names)
		}
	}
	if _, err := doctor.Dump(t.Context(), file, o); !errors.Is(err, os.ErrExist) {
		t.Errorf("%v: an archive that is there must stay", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
