// Sluice-cni is a CNI plugin, to be chained behind the one that makes pods'
// links:
//
//	{
//	  "cniVersion": "1.1.0", "name": "pods", "plugins": [
//	    {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}},
//	    {"type": "sluice-cni", "onAgentAway": "fail", "timeout": "20s"}
//	  ]
//	}
package main

import "github.com/sluice-net/sluice/tools/cni"

func main() { cni.Main("CNI plugin sluice-cni: policy is in force before a pod starts") }
