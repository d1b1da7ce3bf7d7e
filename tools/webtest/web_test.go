package webtest_test

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/deploy/examples"
	"github.com/sluice-net/sluice/tools/lab"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

const labName = "webtest"

// upLab brings the three tiers up, with a page.
func upLab(t *testing.T) *lab.Lab {
	t.Helper()
	files, err := fs.Sub(examples.FS, "three-tier")
	if err != nil {
		t.Fatal(err)
	}
	opts := lab.Default("")
	opts.Name, opts.Files, opts.Self, opts.Web = labName, files, labtest.Binary(t), "127.0.0.1:0"
	l, err := lab.Up(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		labtest.Gone(t, labName)
	})
	return l
}

// talk attempts every connection of the example.
func talk(t *testing.T, l *lab.Lab) {
	t.Helper()
	f, err := examples.FS.Open("three-tier/queries.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	queries, err := lab.ReadQueries(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Probe(t.Context(), queries); err != nil {
		t.Fatal(err)
	}
}

// flood opens UDP flows from one pod to another, each from a port of its own.
func flood(t *testing.T, l *lab.Lab, from, to string, port uint16, flows int) {
	t.Helper()
	ns, src := l.Pod(from)
	_, dst := l.Pod(to)
	if ns == nil || len(dst) == 0 {
		t.Fatalf("no pods %s, %s", from, to)
	}
	err := ns.Do(func() error {
		for i := range flows {
			a := &net.UDPAddr{IP: src[0].AsSlice(), Port: 20000 + i%40000}
			c, err := net.DialUDP("udp", a, net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst[0], port)))
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte("hello")) // refused or not: it was judged
			c.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPage(t *testing.T) {
	path := os.Getenv("SLUICE_CHROMIUM")
	if path == "" {
		t.Skip("SLUICE_CHROMIUM names no Chromium: see make test-web")
	}
	labtest.NeedRoot(t)
	l := upLab(t)
	talk(t, l)
	b := newBrowser(t, path)
	b.scheme("light")
	url := "http://" + l.WebAddr() + "/"
	b.call("Page.navigate", map[string]any{"url": url}, nil)
	b.eventually(`document.querySelectorAll(".edge.deny").length >= 3 && document.querySelectorAll(".edge.allow").length >= 3`)
	b.eventually(`document.getElementById("link").textContent === "live"`)
	b.picture("light")

	// An edge tells who decided.
	b.clickFor(`.edge.deny`, `document.querySelectorAll("#details .rule.deny b").length > 0`)
	if got := eval[string](b, `document.getElementById("details").innerText`); !strings.Contains(got, "NetworkPolicy") || !strings.Contains(got, "/") {
		t.Errorf("a denied edge names no policy:\n%s", got)
	}
	b.picture("edge")
	// So does a flow.
	b.clickFor(`#rows tr:has(.verdict.allow)`,
		`document.querySelectorAll("#details .pair").length > 0 && document.querySelectorAll("#rows tr.on").length === 1`)
	b.scheme("dark")
	b.picture("dark")

	// A filter holds for list and graph.
	b.click(`[name=verdict][value=deny] + span`)
	b.eventually(`document.querySelectorAll("#rows tr").length > 0`)
	b.eventually(`document.querySelectorAll(".edge").length > 0 && document.querySelectorAll(".edge:not(.deny)").length === 0`)
	if n := eval[int](b, `[...document.querySelectorAll("#rows .verdict")].filter((v) => !v.classList.contains("deny")).length`); n > 0 {
		t.Errorf("%d flows that are not denied pass the filter", n)
	}
	eval[bool](b, `(() => { const q = document.getElementById("q"); q.value = "no such name"; q.dispatchEvent(new Event("input")); return true; })()`)
	b.eventually(`document.querySelectorAll("#rows tr").length === 0 && document.querySelectorAll(".edge").length === 0`)
	b.picture("empty")
	eval[bool](b, `(() => { document.getElementById("q").value = ""; document.querySelector("[name=verdict][value='']").click(); return true; })()`)

	// Thousands of flows cost the page no more than some.
	nodes := func() int { return eval[int](b, `document.querySelectorAll("*").length`) }
	seen := func() int {
		return eval[int](b, `(async () => { const { model } = await import("./app.js"); return model.totals.allow + model.totals.deny; })()`)
	}
	// A message lists only some of many flows: it takes as many turns as it takes.
	rows := func() int { return eval[int](b, `document.querySelectorAll("#rows tr").length`) }
	for end := time.Now().Add(patience); rows() < 200 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		flood(t, l, "production/frontend", "production/database", 5432, 100)
	}
	if n := rows(); n != 200 {
		t.Errorf("the page lists %d flows, want the last 200", n)
	}
	few := nodes()
	before := seen()
	flood(t, l, "production/frontend", "production/backend", 8080, 12000)
	for end := 600; seen() < before+1000 && end > 0; end-- {
		b.call("Runtime.evaluate", map[string]any{"expression": "new Promise((r) => setTimeout(r, 100))", "awaitPromise": true}, nil)
	}
	if got := seen(); got < before+1000 {
		t.Errorf("the page saw %d flows of 12000", got-before)
	}
	if many := nodes(); many > few+500 || rows() != 200 {
		t.Errorf("the page has grown from %d to %d elements", few, many)
	}
	b.scheme("light")
	b.picture("busy")
	b.size(420, 900)
	b.picture("narrow")

	faults, asked := b.told()
	if len(faults) > 0 {
		t.Errorf("the page is at fault: %s", strings.Join(faults, "\n"))
	}
	for _, u := range asked {
		if !strings.HasPrefix(u, url) && u != "about:blank" {
			t.Errorf("the page asked for %s", u)
		}
	}
	if len(asked) < 5 {
		t.Errorf("only %d requests were seen: %v", len(asked), asked)
	}
	rebind(t, l.WebAddr())
}

// rebind asks as a page of somebody else would, whose name resolves to the
// agent's address.
func rebind(t *testing.T, addr string) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%s/stream", addr), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another host name got %s", resp.Status)
	}
}
