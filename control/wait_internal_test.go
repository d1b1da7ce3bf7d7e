package control

import (
	"context"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// versions is a source that is asked for a policy's version, and may read the next
// one just then.
type versions struct{ read func() string }

func (v *versions) Run(context.Context, func()) error             { return nil }
func (v *versions) State() SourceState                            { return SourceState{} }
func (v *versions) Whence(policy.Origin) (source, version string) { return "", v.read() }

// The version that is waited for arrives, and is not valid, while it is looked
// whether it has.
func TestWaitForInvalid(t *testing.T) {
	o := policy.Origin{Kind: "NetworkPolicy", Namespace: "x", Name: "p"}
	st := store.New()
	set := func(valid bool) {
		st.Update(func(tx *store.Tx) { tx.SetPolicy(&policy.Policy{Origin: o, Rejected: !valid}) })
	}
	set(true)
	version := "5"
	a := &Agent{store: st, source: &versions{func() string { return version }}}
	a.status.ready = true
	w := api.WaitFor{Policy: keyOf(o), ResourceVersion: "5"}
	a.status.store = st.Generation()
	if _, missing := a.reached(&w); missing != "" {
		t.Errorf("what is in force is waited for: %s", missing)
	}
	a.source = &versions{func() string {
		set(false)
		a.status.store = st.Generation()
		return "6"
	}}
	w.ResourceVersion = "6"
	if _, missing := a.reached(&w); !strings.Contains(missing, "not valid") {
		t.Errorf("a version that is not valid is in force: %q", missing)
	}
}
