package doctor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/sluice-net/sluice/control/api"
)

// DumpOptions say what a dump is of.
type DumpOptions struct {
	Options
	Version string
	Config  string // of the agent; may be empty
	Log     string // of the agent; may be empty
}

// DumpName is the name of an archive that was not given one.
func DumpName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return fmt.Sprintf("sluice-sysdump-%s-%s.tar.gz", host, time.Now().UTC().Format("20060102-150405"))
}

// Bounds of what is collected.
const (
	dumpFlows    = 2000
	dumpLogTail  = 4 << 20
	dumpOutput   = 8 << 20 // of a command
	dumpPatience = 15 * time.Second
)

// commands that show the state of the kernel. Those that are not installed are
// noted as such.
var dumpCommands = []struct {
	file string
	argv []string
}{
	{"net/links.txt", []string{"ip", "-d", "-s", "link"}},
	{"net/addresses.txt", []string{"ip", "addr"}},
	{"net/routes4.txt", []string{"ip", "-4", "route", "show", "table", "all"}},
	{"net/routes6.txt", []string{"ip", "-6", "route", "show", "table", "all"}},
	{"net/rules.txt", []string{"ip", "rule"}},
	{"net/neighbours.txt", []string{"ip", "neigh"}},
	{"net/bridge.txt", []string{"bridge", "fdb"}},
	{"net/namespaces.txt", []string{"ip", "netns", "list-id"}},
	{"net/nft.txt", []string{"nft", "-s", "list", "ruleset"}},
	{"net/sockets.txt", []string{"ss", "-f", "xdp", "-e"}},
	{"bpf/programs.txt", []string{"bpftool", "prog", "list"}},
	{"bpf/maps.txt", []string{"bpftool", "map", "list"}},
	{"bpf/net.txt", []string{"bpftool", "net"}},
	{"kernel/messages.txt", []string{"dmesg", "--ctime"}},
}

var dumpFiles = []string{
	"/proc/version", "/proc/cpuinfo", "/proc/meminfo", "/proc/interrupts", "/proc/softirqs", "/proc/net/softnet_stat",
	"/proc/net/dev", "/proc/net/snmp", "/proc/net/snmp6", "/proc/net/netstat", "/proc/loadavg", "/proc/mounts", "/etc/os-release",
}

// Dump writes the archive and returns how many files are in it. What can't be
// collected is named in errors.txt; that is no error.
func Dump(ctx context.Context, file string, o DumpOptions) (n int, err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("create archive: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	n, err = DumpTo(ctx, f, o)
	return n, errors.Join(err, f.Close())
}

// DumpTo is Dump into what is open already.
func DumpTo(ctx context.Context, w io.Writer, o DumpOptions) (n int, err error) {
	zip := gzip.NewWriter(w)
	d := &dump{tar: tar.NewWriter(zip), now: time.Now()}
	d.collect(ctx, &o)
	d.put("errors.txt", d.notes.Bytes())
	return d.files, errors.Join(d.err, d.tar.Close(), zip.Close())
}

type dump struct {
	tar   *tar.Writer
	now   time.Time
	files int
	notes bytes.Buffer // what was not collected
	err   error        // of writing
}

func (d *dump) put(name string, data []byte) {
	if d.err != nil {
		return
	}
	h := &tar.Header{Name: "sluice-sysdump/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: d.now}
	if d.err = d.tar.WriteHeader(h); d.err == nil {
		_, d.err = d.tar.Write(data)
	}
	d.files++
}

func (d *dump) putJSON(name string, v any, err error) {
	if err != nil {
		fmt.Fprintf(&d.notes, "%s: %v\n", name, err)
		return
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		fmt.Fprintf(&d.notes, "%s: %v\n", name, err)
		return
	}
	d.put(name, data)
}

func (d *dump) collect(ctx context.Context, o *DumpOptions) {
	d.put("version.txt", []byte(o.Version+"\n"))
	d.putJSON("doctor.json", Examine(ctx, o.Options), nil)
	d.agent(ctx, o.Socket)
	for _, path := range dumpFiles {
		data, err := os.ReadFile(o.path(path))
		if err != nil {
			fmt.Fprintf(&d.notes, "%v\n", err)
			continue
		}
		d.put("files"+path, Blank(data))
	}
	if o.Config != "" {
		data, err := os.ReadFile(o.Config)
		if err != nil {
			fmt.Fprintf(&d.notes, "%v\n", err)
		} else {
			d.put("agent/config.yaml", Blank(data))
		}
	}
	if o.Log != "" {
		data, err := tail(o.Log, dumpLogTail)
		if err != nil {
			fmt.Fprintf(&d.notes, "%v\n", err)
		} else {
			d.put("agent/log.txt", Blank(data))
		}
	}
	for _, c := range dumpCommands {
		d.run(ctx, c.file, c.argv)
	}
	d.network()
}

func (d *dump) agent(ctx context.Context, socket string) {
	ctx, cancel := context.WithTimeout(ctx, dumpPatience)
	defer cancel()
	client := api.NewClient(socket)
	s, err := client.FullStatus(ctx)
	d.putJSON("agent/status.json", s, err)
	if err != nil {
		return
	}
	e, err := client.Endpoints(ctx)
	d.putJSON("agent/endpoints.json", e, err)
	p, err := client.Policies(ctx, api.Which{})
	d.putJSON("agent/policies.json", p, err)
	var flows bytes.Buffer
	enc := json.NewEncoder(&flows)
	if err := client.Flows(ctx, dumpFlows, false, nil, func(f *api.Flow) error { return enc.Encode(f) }); err != nil {
		fmt.Fprintf(&d.notes, "agent/flows.jsonl: %v\n", err)
	}
	d.put("agent/flows.jsonl", flows.Bytes())
}

func (d *dump) run(ctx context.Context, file string, argv []string) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		fmt.Fprintf(&d.notes, "%s: %s is not installed\n", file, argv[0])
		return
	}
	ctx, cancel := context.WithTimeout(ctx, dumpPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		fmt.Fprintf(&d.notes, "%s: %s: %v\n", file, argv[0], err)
	}
	d.put(file, Blank(out[:min(len(out), dumpOutput)]))
}

func tail(path string, size int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(0, st.Size()-size), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, size))
}
