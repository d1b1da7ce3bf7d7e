package observe_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/observe"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// packets are what an agent copies: one of each family, one denied.
func packets(t *testing.T) []*api.Packet {
	t.Helper()
	make := func(ip gopacket.SerializableLayer, network gopacket.NetworkLayer, payload int) []byte {
		tcp := &layers.TCP{SrcPort: 4000, DstPort: 80, SYN: true}
		if err := tcp.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
		buf := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, tcp, gopacket.Payload(bytes.Repeat([]byte{7}, payload)))
		if err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	v4 := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
	src, dst := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	v6 := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	one, two := make(v4, v4, 1), make(v6, v6, 301)
	flow := func(verdict, name string, n int64, a, b string) *api.Flow {
		return &api.Flow{Time: time.Unix(1_800_000_000, n).UTC(), Node: "n", Event: "denied", Verdict: verdict, Proto: "TCP", TCPFlags: "SYN", Reason: "policy",
			Src: api.End{Addr: netip.MustParseAddr(a), Port: 4000, Namespace: "shop", Pod: "web"}, Dst: api.End{Addr: netip.MustParseAddr(b), Port: 80},
			DecidedBy: []rule.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: name, Rule: 0, Direction: rule.Egress}}}
	}
	return []*api.Packet{
		{Flow: flow("deny", "a", 5, "10.0.0.1", "10.0.0.2"), Length: len(one), Data: one},
		{Flow: flow("allow", "b-much-longer", 6, "fd00::1", "fd00::2"), Length: len(two), Data: two[:100], Omitted: 2},
		{Lost: 3, Omitted: 4},
	}
}

func record(t *testing.T, limits observe.Limits) (*observe.Recorder, []byte, error) {
	t.Helper()
	var file bytes.Buffer
	c, err := observe.NewCapture(&file, limits.SnapLen, "a test")
	if err != nil {
		t.Fatal(err)
	}
	r := observe.NewRecorder(c, limits)
	for _, p := range packets(t) {
		if err := r.Add(p); err != nil {
			return r, file.Bytes(), errors.Join(err, r.Close())
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if int64(file.Len()) != c.Size() {
		t.Errorf("%d bytes written, %d counted", file.Len(), c.Size())
	}
	return r, file.Bytes(), nil
}

// comments reads the comments of packets by the format's own words.
func comments(t *testing.T, file []byte) (out []string) {
	t.Helper()
	for len(file) > 0 {
		kind, length := binary.LittleEndian.Uint32(file), binary.LittleEndian.Uint32(file[4:])
		if length%4 != 0 || int(length) > len(file) || binary.LittleEndian.Uint32(file[length-4:]) != length {
			t.Fatalf("block of %d of %d bytes, whose end says otherwise", length, len(file))
		}
		if kind == 6 {
			captured := binary.LittleEndian.Uint32(file[20:])
			opts := file[28+(captured+3)&^3 : length-4]
			code, n := binary.LittleEndian.Uint16(opts), binary.LittleEndian.Uint16(opts[2:])
			if code != 1 {
				t.Fatalf("option %d", code)
			}
			out = append(out, string(opts[4:4+n]))
			if rest := opts[4+(n+3)&^3:]; !bytes.Equal(rest, []byte{0, 0, 0, 0}) {
				t.Fatalf("after the comment: %v", rest)
			}
		}
		file = file[length:]
	}
	return out
}

func TestCaptureReads(t *testing.T) {
	r, file, err := record(t, observe.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if r.Denied != 1 || r.Allowed != 1 || r.Lost != 3 || r.Omitted != 4 || !strings.Contains(r.Summary(), "4 over --max-rate") {
		t.Errorf("%+v: %s", r, r.Summary())
	}
	want := []string{
		"DROPPED: denied by NetworkPolicy shop/a egress[0]; shop/web:4000 -> 10.0.0.2:80, node n",
		"FORWARDED: allowed by NetworkPolicy shop/b-much-longer egress[0]; shop/web:4000 -> [fd00::2]:80, node n",
	}
	if got := comments(t, file); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("comments\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	ng, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	if ng.LinkType() != layers.LinkTypeRaw {
		t.Errorf("link type %v", ng.LinkType())
	}
	for i := 0; ; i++ {
		data, info, err := ng.ReadPacketData()
		if errors.Is(err, io.EOF) {
			if i != 2 {
				t.Errorf("%d packets", i)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := packets(t)[i]
		if !bytes.Equal(data, p.Data) || info.Length != p.Length || !info.Timestamp.Equal(p.Flow.Time) {
			t.Errorf("packet %d: %v, %d bytes", i, info, len(data))
		}
	}
}

// Wireshark's own tools read it, where they are installed.
func TestCaptureOpensInWireshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed; TestCaptureReads reads the file by its format")
	}
	_, file, err := record(t, observe.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "t.pcapng")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), tshark, "-r", path, "-T", "fields", "-e", "tcp.dstport", "-e", "tcp.flags.syn", "-e", "frame.len", "-e", "frame.comment")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "80\t") || !strings.Contains(lines[0], "\t41\tDROPPED: denied by NetworkPolicy shop/a egress[0]") ||
		!strings.Contains(lines[1], "\t361\tFORWARDED: ") {
		t.Errorf("tshark reads:\n%s", out)
	}
}

func TestCaptureIsBounded(t *testing.T) {
	limits := observe.DefaultLimits()
	limits.MaxSize = 600
	r, file, err := record(t, limits)
	if !errors.Is(err, observe.ErrFull) || int64(len(file)) > limits.MaxSize || r.Denied+r.Allowed != 1 {
		t.Errorf("%v, %d bytes, %d packets", err, len(file), r.Denied+r.Allowed)
	}
	for _, l := range []observe.Limits{{0, 1 << 20, 1}, {2049, 1 << 20, 1}, {64, 100, 1}, {64, 1 << 20, 0}} {
		if l.Validate() == nil {
			t.Errorf("%+v is valid", l)
		}
	}
}

// The number of an echo is no port.
func TestCommentOfPing(t *testing.T) {
	e := &observe.Event{Flow: api.Flow{Event: "new", Verdict: "allow", Proto: "ICMP", ICMP: "8/0", Node: "n",
		Src: api.End{Addr: netip.MustParseAddr("10.0.0.1"), Port: 77}, Dst: api.End{Addr: netip.MustParseAddr("10.0.0.2"), Port: 77}}}
	if got := observe.Comment(e); !strings.Contains(got, "; 10.0.0.1 -> 10.0.0.2, node n") {
		t.Error(got)
	}
}
