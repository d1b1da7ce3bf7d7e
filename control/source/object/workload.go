package object

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-net/sluice/control/store"
)

// workload names what a user wrote to get a pod: of a ReplicaSet its Deployment,
// of a CronJob's Job the CronJob, else the controller itself. What stands
// between is not read: its name says whose it is.
func workload(meta *metav1.ObjectMeta) store.Workload {
	owner := metav1.GetControllerOfNoCopy(meta)
	if owner == nil {
		return store.Workload{}
	}
	w := store.Workload{Kind: owner.Kind, Name: owner.Name}
	switch owner.Kind {
	case "ReplicaSet":
		if hash := meta.Labels["pod-template-hash"]; hash != "" {
			if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
				return store.Workload{Kind: "Deployment", Name: name}
			}
		}
	case "Job":
		// A CronJob's controller appends the minutes of the schedule since 1970.
		if i := strings.LastIndexByte(owner.Name, '-'); i > 0 && len(owner.Name)-i-1 == 8 && strings.Trim(owner.Name[i+1:], "0123456789") == "" {
			return store.Workload{Kind: "CronJob", Name: owner.Name[:i]}
		}
	}
	return w
}
