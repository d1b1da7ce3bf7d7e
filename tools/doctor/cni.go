package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/api"
)

// Plugins that make links other than veth pairs, or judge packets themselves.
var (
	notVeth   = []string{"ipvlan", "macvlan", "host-device", "vlan", "sriov", "dpdk"}
	alsoJudge = map[string]string{
		"cilium-cni": "Cilium enforces policy itself: turn its enforcement off, or leave Sluice away",
		"calico":     "Calico's felix enforces policy as well: both must allow",
		"firewall":   "the firewall plugin writes rules of its own: both must allow",
	}
)

func (r *Report) cni(o *Options) {
	dir := "/etc/cni/net.d"
	entries, err := os.ReadDir(o.path(dir))
	if err != nil {
		r.add("cni", dir, Info, "not there", "the CNI plugin is chained in where the container runtime has its configuration")
		return
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".conf" || ext == ".conflist" || ext == ".json" {
			files = append(files, e.Name())
		}
	}
	slices.Sort(files)
	if len(files) == 0 {
		r.add("cni", dir, Warn, "no configuration", "install a CNI plugin that makes veth pairs, such as ptp or bridge")
		return
	}
	// The runtime takes the first by name.
	types, err := pluginTypes([]byte(o.read(filepath.Join(dir, files[0]))))
	if err != nil {
		r.add("cni", files[0], Fault, err.Error(), "correct the file: the runtime can't start pods")
		return
	}
	value := strings.Join(types, " → ")
	chained := slices.Contains(types, "sluice-cni")
	switch {
	case slices.ContainsFunc(types, func(t string) bool { return slices.Contains(notVeth, t) }):
		r.add("cni", files[0], Fault, value, "Sluice enforces on veth pairs only")
	case !chained:
		r.add("cni", files[0], Warn, value, "chain sluice-cni behind it: until the agent has found a new pod's link, some milliseconds, the pod is unfiltered")
	default:
		r.add("cni", files[0], OK, value, "")
	}
	for _, t := range types {
		if advice := alsoJudge[t]; advice != "" {
			r.add("cni", t, Warn, "in use", advice)
		}
	}
	if bin := o.path("/opt/cni/bin/sluice-cni"); chained {
		if _, err := os.Stat(bin); err != nil {
			r.add("cni", "sluice-cni", Fault, "not in /opt/cni/bin", "install it there: the runtime can't start pods without")
		}
	}
}

// pluginTypes lists the plugins of a configuration or a list of them.
func pluginTypes(data []byte) ([]string, error) {
	var conf struct {
		Type    string `json:"type"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return nil, fmt.Errorf("decode CNI configuration: %w", err)
	}
	var types []string
	if conf.Type != "" {
		types = append(types, conf.Type)
	}
	for _, p := range conf.Plugins {
		types = append(types, p.Type)
	}
	if len(types) == 0 {
		return nil, fmt.Errorf("decode CNI configuration: no plugin in it")
	}
	return types, nil
}

// agent asks the agent how it is.
func (r *Report) agent(ctx context.Context, o *Options) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s, err := api.NewClient(o.Socket).Status(ctx)
	if err != nil {
		r.add("agent", "status", Info, err.Error(), "no agent runs here, or it serves another socket: see --socket")
		return
	}
	value := fmt.Sprintf("%s, %s, generation %d", s.Node, count(s.Endpoints, "endpoint"), s.Generation)
	switch {
	case !s.Ready:
		r.add("agent", "status", Warn, value+", not ready", strings.Join(append(s.Pending, s.Notes...), "; "))
	case len(s.Rejected) > 0:
		r.add("agent", "status", Warn, fmt.Sprintf("%s, %s rejected", value, count(len(s.Rejected), "object")), "see sluice status")
	default:
		r.add("agent", "status", OK, value, "")
	}
	for i, w := range s.Workers {
		if !w.Alive {
			r.add("agent", fmt.Sprint("worker ", i), Fault, "not alive", "look into the agent's log; new flows are dropped or pass, by failOpen")
		}
	}
	for _, u := range s.Uplinks {
		switch {
		case u.State != "on":
			r.add("agent", "uplink "+u.Name, Warn, u.State+": "+u.Reason, "its traffic is judged at the pods' links instead")
		case u.Mode != "zerocopy":
			r.add("agent", "uplink "+u.Name, Info, "on, mode "+u.Mode, u.Note)
		default:
			r.add("agent", "uplink "+u.Name, OK, "on, mode "+u.Mode, "")
		}
	}
}
