package matrix_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/tools/matrix"
	"github.com/sluice-net/sluice/tools/verdict"
	"github.com/sluice-net/sluice/tools/verdict/verdicttest"
)

func load(t *testing.T, random *verdicttest.Cluster) *verdict.Cluster {
	t.Helper()
	path, err := random.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := verdict.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// flows are those that the queries of a test ask about.
func flows() []verdict.Flow {
	var out []verdict.Flow
	for _, proto := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		for _, port := range verdicttest.Ports {
			out = append(out, verdict.Flow{Protocol: proto, Port: uint16(port)}, verdict.Flow{Protocol: proto, Port: uint16(port - 1)})
		}
	}
	return append(out, verdict.Flow{Protocol: policy.ICMP})
}

// verdicts asks about a pair in all families.
func verdicts(t *testing.T, c *verdict.Cluster, from, to string, f verdict.Flow) []bool {
	t.Helper()
	src, err1 := c.End(from)
	dst, err2 := c.End(to)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	pairs, err := verdict.Pairs(src, dst)
	if err != nil {
		return nil
	}
	var out []bool
	for _, pair := range pairs {
		d, err := c.Judge(src, dst, pair, f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d.Allowed)
	}
	return out
}

// TestCells asks about each pair of members, one by one, what the cell of
// their groups says.
func TestCells(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 9))
		c := load(t, verdicttest.Random(r))
		for _, f := range flows() {
			m, err := matrix.New(c, matrix.Options{Ports: []verdict.Flow{f}})
			if err != nil {
				t.Fatal(err)
			}
			checkCells(t, c, m, f, seed)
		}
	}
}

func checkCells(t *testing.T, c *verdict.Cluster, m *matrix.Matrix, f verdict.Flow, seed uint64) {
	t.Helper()
	for i, src := range m.Groups {
		for j, dst := range m.Groups {
			var got []bool
			for _, from := range src.Members {
				for _, to := range dst.Members {
					if from != to {
						got = append(got, verdicts(t, c, from, to, f)...)
					}
				}
			}
			open, closed := slices.Contains(got, true), slices.Contains(got, false)
			want := map[bool]matrix.State{true: matrix.All, false: matrix.None}[open]
			if open && closed {
				want = matrix.Mixed
			}
			if cell := m.Cells[i][j]; len(got) > 0 && cell.State != want {
				t.Fatalf("seed %d: %v to %v %s: the cell says %s, members %v", seed, src.Members, dst.Members, f, cell.State, got)
			}
		}
	}
}

// TestAllPorts compares what a matrix of all ports says with single questions.
func TestAllPorts(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 10))
		c := load(t, verdicttest.Random(r))
		m, err := matrix.New(c, matrix.Default())
		if err != nil {
			t.Fatal(err)
		}
		for i, src := range m.Groups {
			for j, dst := range m.Groups {
				if src.Region || dst.Region || i == j {
					continue
				}
				open := m.Cells[i][j].Ports.String()
				for _, f := range flows() {
					got := verdicts(t, c, src.Name, dst.Name, f)
					if want := len(got) > 0 && !slices.Contains(got, false); want != listed(open, f) {
						t.Fatalf("seed %d: %s to %s %s: verdicts %v, the matrix says %s", seed, src.Name, dst.Name, f, got, open)
					}
				}
			}
		}
	}
}

// listed reads the text of Ports back.
func listed(ports string, f verdict.Flow) bool {
	for part := range strings.SplitSeq(ports, " ") {
		if part == "all" || part == "other" && !verdict.HasPorts(f.Protocol) {
			return true
		}
		proto, list, _ := strings.Cut(part, "/")
		if proto != verdict.ProtocolName(f.Protocol) {
			continue
		}
		for item := range strings.SplitSeq(list, ",") {
			var from, to uint16
			if n, _ := fmt.Sscanf(item, "%d-%d", &from, &to); n == 1 {
				to = from
			}
			if item == "all" || from <= f.Port && f.Port <= to {
				return true
			}
		}
	}
	return false
}

// TestDiff asks both versions the same questions: what differs is listed, and
// nothing else.
func TestDiff(t *testing.T) {
	changed := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 11))
		random := verdicttest.Random(r)
		before := load(t, random)
		switch i := r.IntN(len(random.Policies)); r.IntN(3) {
		case 0:
			random.Policies = slices.Delete(random.Policies, i, i+1)
		case 1:
			random.Policies[i] = verdicttest.RandomPolicy(r, random.Policies[i].Name)
		case 2:
			random.Policies = append(random.Policies, verdicttest.RandomPolicy(r, "new"))
		}
		after := load(t, random)
		d, err := matrix.Diff(before, after)
		if err != nil {
			t.Fatal(err)
		}
		changed += len(d.Changes)
		for _, x := range random.Pods {
			for _, y := range random.Pods {
				if x == y {
					continue
				}
				from, to := x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name
				for _, f := range flows() {
					checkDiff(t, seed, d, from, to, f, verdicts(t, before, from, to, f), verdicts(t, after, from, to, f))
				}
			}
		}
	}
	if changed == 0 {
		t.Fatal("no version changed anything: nothing was tested")
	}
}

func checkDiff(t *testing.T, seed uint64, d *matrix.Difference, from, to string, f verdict.Flow, before, after []bool) {
	t.Helper()
	has := func(names []string, name string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return n == name || strings.HasPrefix(n, name+" (") })
	}
	found := ""
	for _, c := range d.Changes {
		if has(c.From, from) && has(c.To, to) && listed(c.Ports.String(), f) {
			found += c.Change + " "
		}
	}
	if (found != "") != !slices.Equal(before, after) {
		t.Fatalf("seed %d: %s to %s %s: before %v, after %v, listed as %q", seed, from, to, f, before, after, found)
	}
}

// TestSVG: the picture is well-formed and has a cell for each pair.
func TestSVG(t *testing.T) {
	c := load(t, verdicttest.Random(rand.New(rand.NewPCG(1, 12))))
	m, err := matrix.New(c, matrix.Default())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(&b)
	titles := 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "title" {
			titles++
		}
	}
	if want := len(m.Groups)*len(m.Groups) + 1; titles != want {
		t.Errorf("%d titles, want %d", titles, want)
	}
}
