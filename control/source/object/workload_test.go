package object_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/source/object"
	"github.com/sluice-net/sluice/control/store"
)

func TestWorkload(t *testing.T) {
	for _, c := range []struct {
		name, kind, owner string
		want              store.Workload
	}{
		{"none", "", "", store.Workload{}},
		{"deployment", "ReplicaSet", "web-5d4f", store.Workload{Kind: "Deployment", Name: "web"}},
		{"bare replica set", "ReplicaSet", "web-77aa", store.Workload{Kind: "ReplicaSet", Name: "web-77aa"}},
		{"cron job", "Job", "backup-29712345", store.Workload{Kind: "CronJob", Name: "backup"}},
		{"job", "Job", "migrate-1", store.Workload{Kind: "Job", Name: "migrate-1"}},
		{"stateful set", "StatefulSet", "db", store.Workload{Kind: "StatefulSet", Name: "db"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"pod-template-hash": "5d4f"}}}
			if c.kind != "" {
				yes := true
				p.OwnerReferences = []metav1.OwnerReference{{Kind: c.kind, Name: c.owner, Controller: &yes}}
			}
			got, _ := object.Pod(p)
			if got.Workload != c.want {
				t.Errorf("%+v, want %+v", got.Workload, c.want)
			}
		})
	}
}
