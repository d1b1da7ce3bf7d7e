package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/lab"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

const (
	threeTier = "../../deploy/examples/three-tier"
	frontend  = "10.244.1.10"
	backend   = "10.244.1.20"
	database  = "10.244.1.30"
)

// observed is a lab whose agent is asked.
type observed struct {
	*testing.T
	name string
}

func (o observed) sluice(want int, args ...string) (stdout, stderr string) {
	o.Helper()
	code, out, errs := labtest.Run(o.T, args...)
	if code != want {
		o.Fatalf("sluice %s: exit %d, want %d\n%s%s", strings.Join(args, " "), code, want, out, errs)
	}
	return out, errs
}

func (o observed) observe(args ...string) string {
	o.Helper()
	out, _ := o.sluice(0, append([]string{"observe", "--lab", o.name}, args...)...)
	return out
}

func (o observed) connect(allowed bool, pod, addr, port string) {
	o.Helper()
	labtest.Connect(o.T, o.name, allowed, pod, addr, port)
}

func contains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

// TestObserve asks a lab's agent in each way.
func TestObserve(t *testing.T) {
	labtest.NeedRoot(t)
	o := observed{t, lab.UniqueName("o")}
	o.sluice(0, "lab", "up", "-f", threeTier, "--name", o.name, "--detach")
	t.Cleanup(func() {
		if out, err := exec.Command(labtest.Binary(t), "lab", "down", "--name", o.name).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
		labtest.Gone(t, o.name)
	})
	following := o.follow("-f", "--verdict", "DROPPED", "-o", "jsonl")
	capture := o.capture()
	o.connect(true, "production/frontend", backend, "8080")
	first := following(func() { o.connect(false, "production/frontend", database, "5432") })
	o.connect(false, "gateway/envoy", frontend, "443")
	if first.Verdict != "deny" || first.Dst.Pod != "database" || first.Dst.Port != 5432 || len(first.DecidedBy) == 0 || len(first.Src.Labels) == 0 {
		t.Errorf("followed: %+v", first)
	}
	t.Run("lines", o.lines)
	t.Run("refused", o.refused)
	t.Run("packets", func(t *testing.T) { checkPackets(t, capture()) })
	t.Run("suggest", o.suggest)
}

// follow starts a command that goes on; what it returns does something until there is
// a first line, as the command may not have begun to follow yet, and ends it.
func (o observed) follow(args ...string) func(do func()) *api.Flow {
	o.Helper()
	cmd := exec.Command(labtest.Binary(o.T), append([]string{"observe", "--lab", o.name}, args...)...)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		o.Fatal(err)
	}
	lines := make(chan []byte, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadBytes('\n') // an error shows as no line
		lines <- line
	}()
	return func(do func()) *api.Flow {
		f := &api.Flow{}
		var line []byte
		for end := time.Now().Add(30 * time.Second); line == nil && time.Now().Before(end); {
			do()
			select {
			case line = <-lines:
			case <-time.After(time.Second):
			}
		}
		if err := json.Unmarshal(line, f); err != nil {
			o.Errorf("followed %q: %v", line, err)
		}
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			o.Errorf("interrupted: %v", err)
		}
		return f
	}
}

// capture starts a capture; what it returns ends it.
func (o observed) capture() func() []byte {
	o.Helper()
	path := filepath.Join(o.TempDir(), "t.pcapng")
	cmd := exec.Command(labtest.Binary(o.T), "observe", "--lab", o.name, "--write", path, "--verdict", "DROPPED", "--to-ip", database, "--max-rate", "50")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		o.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it is made when the agent has begun
		if _, err := os.Stat(path); err == nil {
			break
		}
		if time.Now().After(end) {
			o.Fatalf("no capture: %s", &errs)
		}
	}
	_, busy := o.sluice(1, "observe", "--lab", o.name, "--write", path+"2")
	contains(o.T, busy, "being captured already")
	if _, err := os.Stat(path + "2"); err == nil {
		o.Error("a capture that came to nothing has a file")
	}
	return func() []byte {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			o.Errorf("capture: %v: %s", err, &errs)
		}
		contains(o.T, errs.String(), "packets written (", " denied, 0 allowed)")
		file, err := os.ReadFile(path)
		if err != nil {
			o.Fatal(err)
		}
		return file
	}
}

// checkPackets wants first packets to the database, with the policies that
// denied them.
func checkPackets(t *testing.T, file []byte) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.Default)
		tcp, ok := p.TransportLayer().(*layers.TCP)
		if !ok || !tcp.SYN || tcp.DstPort != 5432 || p.NetworkLayer().NetworkFlow().Dst().String() != database {
			t.Errorf("packet %d: %v", n, p)
		}
	}
	if n == 0 || bytes.Count(file, []byte("DROPPED: denied by NetworkPolicy production/allow-dns, production/default-deny")) != n {
		t.Errorf("%d packets, %d comments", n, bytes.Count(file, []byte("DROPPED: denied by")))
	}
	if binary.LittleEndian.Uint32(file) != 0x0a0d0d0a {
		t.Error("no section header")
	}
}

func (o observed) lines(t *testing.T) {
	o.T = t
	contains(t, o.observe(), "FORWARDED production/frontend:", "-> production/backend:8080 TCP SYN",
		"DROPPED   gateway/envoy:", "-> production/frontend:443", "production/default-deny (no ingress rule matches)")
	contains(t, o.observe("--print-policy-names", "--port", "8080"), "allowed by NetworkPolicy production/frontend-to-backend egress[0], NetworkPolicy production/backend-from-frontend ingress[0]")
	for args, not := range map[string]string{"--verdict FORWARDED": "DROPPED", "--not --verdict DROPPED": "DROPPED", "--from-pod gateway/env": "8080",
		"--to-namespace production --from-namespace gateway": "5432", "--to-ip " + database + "/32": "8080", "--protocol udp": "TCP",
		"--from-label app=envoy": "backend", "--since 2020-01-01 --until 2020-01-02": "production", "--type drop": "FORWARDED", "--node-name other": "production"} {
		if out := o.observe(strings.Fields(args)...); strings.Contains(out, not) {
			t.Errorf("%s shows %s:\n%s", args, not, out)
		}
	}
	if out := o.observe("--verdict", "DROPPED", "--last", "1"); strings.Count(out, "\n") != 1 || strings.Contains(out, "\x1b") {
		t.Errorf("--last 1 shows:\n%s", out)
	}
	contains(t, o.observe("--verdict", "DROPPED", "--last", "1", "--color", "always"), "\x1b[31mDROPPED\x1b[0m")
	contains(t, o.observe("-o", "table"), "TIMESTAMP", "SOURCE", "CAUSE")
	contains(t, o.observe("-o", "dict", "--verdict", "DROPPED", "--last", "1"), "SOURCE: ", "VERDICT: DROPPED")
	contains(t, o.observe("-o", "json", "--verdict", "DROPPED", "--last", "1"), `{"flow":{`, `"drop_reason_desc":"POLICY_DENIED"`, `"ingress_denied_by":[`)
	var top string
	for end := time.Now().Add(30 * time.Second); !strings.Contains(top, "production/database  TCP/5432") && time.Now().Before(end); {
		top = o.observe("--top", "-f", "--duration", "2s") // which begin before it is connected
	}
	contains(t, top, "production/database  TCP/5432")
	contains(t, o.observe("--top"), "BUSIEST", "MOST DENIED", "production/database  TCP/5432", "events, 0 lost")
	contains(t, o.observe("--to-port", "443", "--last", "1", "--explain"), "DROPPED",
		"egress of gateway/envoy: allow: no policy selects the pod for egress", "ingress of production/frontend: deny: isolated: ",
		"NetworkPolicy production/allow-frontend (isolates)", "ingress[0] allow: no match", "not about this pod: NetworkPolicy production/database-from-backend")
	var x struct{ Explanation struct{ Verdict string } }
	if err := json.Unmarshal([]byte(o.observe("--to-port", "443", "--last", "1", "--explain", "-o", "jsonl")), &x); err != nil || x.Explanation.Verdict != "deny" {
		t.Errorf("explained in JSON: %+v, %v", x, err)
	}
	state, err := lab.Find(o.name)
	if err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{state.Socket, filepath.Join(filepath.Dir(state.Socket), "hubble.sock")} {
		out, _ := o.sluice(0, "observe", "--socket", socket, "--verdict", "DROPPED", "--last", "1")
		contains(t, out, "DROPPED")
	}
	out, _ := o.sluice(0, "observe", "--server", "unix://"+filepath.Join(filepath.Dir(state.Socket), "hubble.sock"), "--verdict", "DROPPED", "--last", "1")
	contains(t, out, "DROPPED")
}

func (o observed) refused(t *testing.T) {
	o.T = t
	for args, want := range map[string]string{
		"--from-ip 10.0.0.0/99": "want an address or a CIDR", "--protocol http": "InvalidArgument", "--http-method GET": "unknown flag",
		"--from-label a=(": "InvalidArgument", "--not": "followed by no filter", "-f -o table": "a table has an end", "--first 1 --last 1": "can't be combined",
		"-o yaml": "want compact or table", "--since yesterday": "want a duration", "--write x --since 1m": "packets are not kept", "--write x --snaplen 0": "want 1 to 2048",
		"--write x --protocol http": "protocol: http",
	} {
		code := 2
		if strings.HasPrefix(args, "--write x --protocol") {
			code = 1 // the agent's answer
		}
		_, errs := o.sluice(code, append([]string{"observe", "--lab", o.name}, strings.Fields(args)...)...)
		contains(t, errs, want)
	}
	_, errs := o.sluice(1, "observe", "--socket", "/nowhere/sluice.sock")
	contains(t, errs, "/nowhere/sluice.sock")
}

// suggest derives policies from what was seen, and asks what they say.
func (o observed) suggest(t *testing.T) {
	o.T = t
	out, errs := o.sluice(0, "policy", "suggest", "--lab", o.name)
	contains(t, errs, "policies that allow all of")
	contains(t, out, "name: suggested-backend", "-> production/backend TCP/8080")
	dir := t.TempDir()
	pods, err := os.ReadFile(filepath.Join(threeTier, "pods.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"pods.yaml": string(pods), "policies.yaml": out} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]string{"production/frontend production/backend 8080": "allow", "production/frontend production/backend 8081": "deny",
		"production/frontend production/database 5432": "deny", "gateway/envoy production/frontend 443": "deny"} {
		got, _ := o.sluice(0, append([]string{"verdict", "-f", dir}, strings.Fields(query)...)...)
		if !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", query, got)
		}
	}
	denied, _ := o.sluice(0, "policy", "suggest", "--lab", o.name, "--denied", "--only-namespace", "production")
	contains(t, denied, "-> production/database TCP/5432")
	flows := filepath.Join(dir, "flows.jsonl")
	if err := os.WriteFile(flows, []byte(o.observe("--all", "-o", "jsonl")), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _ := o.sluice(0, "policy", "suggest", "-f", flows); again != out {
		t.Errorf("from a file:\n%s\nwant\n%s", again, out)
	}
	_, errs = o.sluice(2, "policy", "suggest", "-f", flows, "--port", "80")
	contains(t, errs, "filter when you record them")
}

// Without offload a capture has every packet of an allowed flow, both ways.
func TestCaptureAllowed(t *testing.T) {
	labtest.NeedRoot(t)
	o := observed{t, lab.UniqueName("oc")}
	o.sluice(0, "lab", "up", "-f", threeTier, "--name", o.name, "--offload=off", "--detach")
	t.Cleanup(func() {
		if out, err := exec.Command(labtest.Binary(t), "lab", "down", "--name", o.name).CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
		labtest.Gone(t, o.name)
	})
	path := filepath.Join(t.TempDir(), "t.pcapng")
	cmd := exec.Command(labtest.Binary(t), "observe", "--lab", o.name, "--write", path, "--verdict", "FORWARDED", "--port", "8080")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			break
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			t.Fatal("no capture")
		}
	}
	o.connect(true, "production/frontend", backend, "8080")
	var seen map[string]int
	whole := func() bool { return seen["syn"] > 0 && seen["syn+ack"] > 0 && seen["ack"] > 0 && seen["end"] > 0 }
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && !whole(); time.Sleep(50 * time.Millisecond) {
		seen = segments(t, path) // what there is so far
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !whole() || seen["other"]+seen["twice"] > 0 {
		t.Errorf("captured %v", seen)
	}
}

// segments counts the packets of a capture that may still grow by what they are of
// a TCP connection. A busy machine sends some again, but none is the same as before.
func segments(t *testing.T, path string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		return seen
	}
	packets := map[string]bool{}
	for {
		data, _, err := r.ReadPacketData()
		if err != nil { // the end, so far
			return seen
		}
		if packets[string(data)] {
			seen["twice"]++
		}
		packets[string(data)] = true
		tcp, ok := gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.Default).TransportLayer().(*layers.TCP)
		switch {
		case !ok:
			seen["other"]++
		case tcp.SYN && tcp.ACK:
			seen["syn+ack"]++
		case tcp.SYN:
			seen["syn"]++
		case tcp.FIN || tcp.RST:
			seen["end"]++
		default:
			seen["ack"]++
		}
	}
}
