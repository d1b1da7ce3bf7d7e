package control

import (
	"log/slog"
	"net/netip"
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

// A pod that may have a link here is looked for when it comes, moves and goes. By a
// folder of manifests it may be one of a node that goes by another name.
func TestFollowPods(t *testing.T) {
	for _, tt := range []struct {
		name, kubeconfig, node string
		moves                  bool
	}{
		{"manifests, this node", "", "n", true},
		{"manifests, another name", "", "other", true},
		{"cluster, this node", "file", "n", true},
		{"cluster, another node", "file", "other", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := attacher()
			a.cfg.Kubeconfig = tt.kubeconfig
			a.followPods()
			pod := store.Pod{Namespace: "x", Name: "p", NodeName: tt.node, UID: "1", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
			for _, step := range []struct {
				what   string
				change func()
				moves  bool
			}{
				{"it comes", func() {}, true},
				{"it gets a label", func() { pod.Labels = map[string]string{"a": "b"} }, false},
				{"it gets another address", func() { pod.IPs = []netip.Addr{netip.MustParseAddr("10.0.0.2")} }, true},
				{"it is another", func() { pod.UID = "2" }, true},
				{"it finishes", func() { pod.Phase = store.Finished }, true},
				{"it goes", nil, false},
			} {
				a.store.Update(func(tx *store.Tx) {
					if step.change == nil {
						tx.DeletePod(pod.Key())
						return
					}
					step.change()
					now := pod
					tx.SetPod(&now)
				})
				if moved := a.followPods(); moved != (tt.moves && step.moves) {
					t.Errorf("%s: moved %v", step.what, moved)
				}
			}
		})
	}
}
