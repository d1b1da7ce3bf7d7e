package control

import (
	"log/slog"
	"testing"

	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/store"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/endpoint"
)

// attacher is an agent without a dataplane: nothing can be attached.
func attacher() *Agent {
	return &Agent{cfg: Config{NodeName: "n"}, log: slog.New(slog.DiscardHandler), store: store.New(), attached: map[store.Key]endpoint.Endpoint{},
		recall: &recall{left: map[store.Key]record{}, found: map[store.Key]link.Found{}, unproven: map[store.Key]struct{}{}}}
}

// What a record said of a pod needs no proof once the pod has gone.
func TestUnprovenGone(t *testing.T) {
	a := attacher()
	a.pruned, a.published = true, &classify.Table{}
	a.recall.unproven[store.Key{Namespace: "x", Name: "gone"}] = struct{}{}
	if missing, changed, err := a.reconcile(map[store.Key]*store.Pod{}, true); missing != nil || changed || err != nil {
		t.Errorf("%v, %v, %v", missing, changed, err)
	}
	if len(a.recall.unproven) != 0 {
		t.Error("a search is asked for as long as the agent lives")
	}
}
