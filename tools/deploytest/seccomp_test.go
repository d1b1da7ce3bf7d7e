package deploytest_test

import (
	"encoding/json"
	"os"
	"runtime"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// profile is the format of the containers project, whose profile is CRI-O's
// RuntimeDefault and much like containerd's.
type profile struct {
	DefaultAction   string `json:"defaultAction"`
	DefaultErrnoRet uint   `json:"defaultErrnoRet"`
	Syscalls        []struct {
		Names    []string         `json:"names"`
		Action   string           `json:"action"`
		ErrnoRet *uint            `json:"errnoRet"`
		Args     []map[string]any `json:"args"`
		Includes condition        `json:"includes"`
		Excludes condition        `json:"excludes"`
	} `json:"syscalls"`
}

type condition struct {
	Caps   []string `json:"caps"`
	Arches []string `json:"arches"`
}

// seccomp makes the filter of RuntimeDefault for these capabilities.
func (n *runtimeNode) seccomp(p *corev1.PodSpec, caps []string) object {
	n.Helper()
	if sp := p.SecurityContext.SeccompProfile; sp == nil || sp.Type != corev1.SeccompProfileTypeRuntimeDefault {
		n.Fatalf("seccomp profile: %v", sp)
	}
	data, err := os.ReadFile(os.Getenv("SLUICE_SECCOMP"))
	needs(n, "seccomp profile at SLUICE_SECCOMP", err == nil)
	var from profile
	must(n, json.Unmarshal(data, &from))
	out := object{"defaultAction": from.DefaultAction, "defaultErrnoRet": from.DefaultErrnoRet,
		"architectures": []string{map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}[runtime.GOARCH]}}
	var rules []object
	for _, s := range from.Syscalls {
		has := func(c string) bool { return slices.Contains(caps, c) }
		if slices.ContainsFunc(s.Excludes.Caps, has) || slices.ContainsFunc(s.Includes.Caps, func(c string) bool { return !has(c) }) ||
			len(s.Includes.Arches) > 0 && !slices.Contains(s.Includes.Arches, runtime.GOARCH) {
			continue
		}
		rule := object{"names": s.Names, "action": s.Action}
		if s.ErrnoRet != nil && s.Action == "SCMP_ACT_ERRNO" {
			rule["errnoRet"] = *s.ErrnoRet
		}
		if len(s.Args) > 0 {
			rule["args"] = s.Args
		}
		rules = append(rules, rule)
	}
	out["syscalls"] = rules
	return out
}
