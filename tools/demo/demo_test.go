package demo_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/tools/demo"
	"github.com/sluice-net/sluice/tools/lab"
	"github.com/sluice-net/sluice/tools/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

func TestDemo(t *testing.T) {
	labtest.NeedRoot(t)
	for _, offload := range []bool{true, false} {
		t.Run(fmt.Sprintf("offload=%v", offload), func(t *testing.T) {
			t.Parallel()
			testDemo(t, offload)
		})
	}
}

func testDemo(t *testing.T, offload bool) {
	opts := lab.Default("")
	opts.Name, opts.Self, opts.Offload = lab.UniqueName("t"), labtest.Binary(t), offload
	d, err := demo.Up(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	answers, err := d.Attempt(t.Context())
	if err != nil || len(answers) < 40 {
		t.Errorf("%d connections, %v", len(answers), err)
	}
	for _, a := range answers {
		if a.Want == "" || a.Differs() || a.Error != "" {
			t.Errorf("%s to %s: want %q, got %q, error %q", a.Src, a.Dst, a.Want, a.Verdict, a.Error)
		}
	}
	if c, err := d.ChangePolicy(t.Context()); err != nil || !c.AsExpected() {
		t.Errorf("change: %+v, %v", c, err)
	}
	verdicts := map[string]int{}
	for end := time.Now().Add(30 * time.Second); err == nil && (verdicts[lab.Allow] == 0 || verdicts[lab.Deny] == 0) && time.Now().Before(end); {
		err = d.Watch(t.Context(), 2*time.Second, func(f *api.Flow) { verdicts[f.Verdict]++ })
	}
	if err != nil || verdicts[lab.Allow] == 0 || verdicts[lab.Deny] == 0 {
		t.Errorf("watched %v, %v", verdicts, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	labtest.Gone(t, opts.Name)
}

// TestInterrupted ends the command at several moments, with and without its
// having a say in it: nothing may stay behind.
func TestInterrupted(t *testing.T) {
	labtest.NeedRoot(t)
	// Where this runs in the background, interrupts are ignored, and so would
	// be the one that the demo gets before it asks for them.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, os.Interrupt)
	t.Cleanup(func() { signal.Stop(caught) })
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		for _, after := range []time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second} {
			t.Run(sig.String()+" after "+after.String(), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				name := lab.UniqueName("t")
				cmd := exec.CommandContext(ctx, labtest.Binary(t), "demo", "--name", name)
				var out strings.Builder
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after)
				cmd.Process.Signal(sig)
				if err := cmd.Wait(); err == nil {
					t.Error("it ended well")
				}
				labtest.Gone(t, name)
			})
		}
	}
}
