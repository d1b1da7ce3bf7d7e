package doctor

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// release is a kernel's major and minor version.
type release struct{ major, minor int }

func (r release) less(s release) bool {
	return r.major < s.major || r.major == s.major && r.minor < s.minor
}

// parseRelease reads "6.18.3-amd64".
func parseRelease(text string) (release, error) {
	parts := strings.SplitN(strings.TrimSpace(text), ".", 3)
	if len(parts) < 2 {
		return release{}, fmt.Errorf("kernel release %q: want at least two numbers", text)
	}
	major, err := strconv.Atoi(parts[0])
	digits := strings.IndexFunc(parts[1]+" ", func(c rune) bool { return c < '0' || c > '9' })
	minor, err2 := strconv.Atoi(parts[1][:digits])
	if err != nil || err2 != nil {
		return release{}, fmt.Errorf("kernel release %q: want at least two numbers", text)
	}
	return release{major, minor}, nil
}

// options of the kernel's configuration that Sluice needs, and what for.
var needed = []struct {
	name, what string
	level      Level // if it is missing
}{
	{"CONFIG_BPF_SYSCALL", "BPF", Fault},
	{"CONFIG_BPF_JIT", "the BPF compiler: without it every packet costs several times as much", Warn},
	{"CONFIG_NET_CLS_ACT", "programs on links", Fault},
	{"CONFIG_XDP_SOCKETS", "AF_XDP sockets", Fault},
	{"CONFIG_VETH", "steering ports", Fault},
	{"CONFIG_NET_CLS_BPF", "programs on links before Linux 6.6", Info},
	{"CONFIG_NET_SCH_INGRESS", "programs on links before Linux 6.6", Info},
	{"CONFIG_DEBUG_INFO_BTF", "types of the kernel for diagnosis", Info},
	{"CONFIG_NETFILTER_NETLINK_LOG", "events of what nftables drops of calls of Services", Info},
	{"CONFIG_NFT_LOG", "events of what nftables drops of calls of Services", Info},
	{"CONFIG_NFT_LIMIT", "events of what nftables drops of calls of Services", Info},
	{"CONFIG_HUGETLBFS", "huge pages for packet memory", Info},
}

func (r *Report) kernel(o *Options) {
	text, err := os.ReadFile(o.path("/proc/sys/kernel/osrelease"))
	if err != nil {
		r.add("kernel", "release", Fault, err.Error(), "mount /proc")
		return
	}
	version := strings.TrimSpace(string(text))
	rel, err := parseRelease(version)
	switch {
	case err != nil:
		r.add("kernel", "release", Warn, err.Error(), "")
	case rel.less(release{5, 15}):
		r.add("kernel", "release", Fault, version, "Sluice needs Linux 5.15 or later; 6.6 is recommended")
	case rel.less(release{6, 6}):
		r.add("kernel", "release", Warn, version, "works: programs attach as clsact filters. But before Linux 6.6 workers take packets of at most 1,750 bytes, 3,400 with frameSize: 4096: keep pods' MTU below, or use 6.6 or later")
	default:
		r.add("kernel", "release", OK, version, "")
	}
	config, from := o.kernelConfig(version)
	if config == nil {
		r.add("kernel", "configuration", Info, "not found in /proc/config.gz, /boot or /lib/modules", "")
		return
	}
	missing := 0
	for _, n := range needed {
		if v := config[n.name]; v != "y" && v != "m" {
			missing++
			r.add("kernel", n.name, n.level, "not set", "needed for "+n.what)
		}
	}
	if missing == 0 {
		r.add("kernel", "configuration", OK, fmt.Sprintf("%s, all %d options set", from, len(needed)), "")
	}
}

// kernelConfig reads the configuration of the kernel from where distributions
// put it.
func (o *Options) kernelConfig(version string) (map[string]string, string) {
	for _, path := range []string{"/proc/config.gz", "/boot/config-" + version, "/lib/modules/" + version + "/config"} {
		data, err := os.ReadFile(o.path(path))
		if err != nil {
			continue
		}
		var in io.Reader = bytes.NewReader(data)
		if strings.HasSuffix(path, ".gz") {
			if in, err = gzip.NewReader(in); err != nil {
				continue
			}
		}
		return parseConfig(in), path
	}
	return nil, ""
}

func parseConfig(in io.Reader) map[string]string {
	config := map[string]string{}
	for s := bufio.NewScanner(in); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			config[name] = value
		}
	}
	return config
}

func (o *Options) path(p string) string {
	if o.Root == "" {
		return p
	}
	return filepath.Join(o.Root, p)
}

// read returns a file's text without surrounding space, or "".
func (o *Options) read(p string) string {
	b, err := os.ReadFile(o.path(p))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
