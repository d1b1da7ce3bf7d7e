package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-net/sluice/bench/netlab"
)

// State is what a lab says about itself, for the commands that are not its
// owner.
type State struct {
	Name      string       `json:"name"`
	PID       int          `json:"pid"` // of the owner
	Started   time.Time    `json:"started"`
	Manifests string       `json:"manifests"`
	CNI       netlab.Shape `json:"cni"`
	MTU       int          `json:"mtu"`
	Offload   bool         `json:"offload"`
	FailOpen  bool         `json:"failOpen"`
	Socket    string       `json:"socket"` // the agent's
	AgentPID  int          `json:"agentPid,omitempty"`
	AgentLog  string       `json:"agentLog"`
	Host      string       `json:"host"` // name of the node's network namespace
	Pods      []Pod        `json:"pods"`
	Externals []External   `json:"externals,omitempty"`
	Messages  []string     `json:"messages,omitempty"` // what of the manifests is not in force, and why
}

// Pod is a pod of a lab.
type Pod struct {
	Namespace   string       `json:"namespace"`
	Name        string       `json:"name"`
	Addresses   []netip.Addr `json:"addresses"`
	Netns       string       `json:"netns"`
	Link        string       `json:"link,omitempty"` // the host's end
	Ports       []Port       `json:"ports,omitempty"`
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	Ready       bool         `json:"ready"`
}

// External is a host beyond the node's uplink.
type External struct {
	Address netip.Addr `json:"address"`
	Netns   string     `json:"netns"`
}

func statePath(name string) string { return filepath.Join(dirOf(name), "state.json") }

func (s *State) write() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state of lab %s: %w", s.Name, err)
	}
	return replaceFile(statePath(s.Name), append(b, '\n'))
}

// replaceFile writes a file that readers see either old or new.
func replaceFile(path string, data []byte) error {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ErrNoLab says that no lab is up, or none of that name.
var ErrNoLab = errors.New("no such lab is up")

// Find returns the state of the live lab of that name; without a name, that of
// the only one, or of the one that has the default name.
func Find(name string) (*State, error) {
	live, err := Live()
	if err != nil {
		return nil, err
	}
	want := name
	if want == "" {
		want = DefaultName
	}
	for i := range live {
		if live[i].Name == want {
			return &live[i], nil
		}
	}
	switch {
	case name != "":
		return nil, fmt.Errorf("lab %s: %w", name, ErrNoLab)
	case len(live) == 0:
		return nil, ErrNoLab
	case len(live) > 1:
		return nil, fmt.Errorf("%d labs are up: say which one by its name", len(live))
	}
	return &live[0], nil
}

// Live returns the states of all labs that are up.
func Live() ([]State, error) {
	all, err := names()
	if err != nil {
		return nil, err
	}
	var live []State
	for _, name := range all {
		if !alive(name) {
			continue
		}
		b, err := os.ReadFile(statePath(name))
		if errors.Is(err, os.ErrNotExist) {
			continue // about to come up, or to end
		}
		if err != nil {
			return nil, fmt.Errorf("read state of lab %s: %w", name, err)
		}
		var s State
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, fmt.Errorf("read state of lab %s: %w", name, err)
		}
		live = append(live, s)
	}
	return live, nil
}

// Netns returns the name of the network namespace of "NS/POD", "host" or
// "ip:ADDR".
func (s *State) Netns(target string) (string, error) {
	if target == "host" {
		return s.Host, nil
	}
	for _, p := range s.Pods {
		if p.Namespace+"/"+p.Name == target {
			return p.Netns, nil
		}
	}
	for _, e := range s.Externals {
		if "ip:"+e.Address.String() == target {
			return e.Netns, nil
		}
	}
	return "", fmt.Errorf("lab %s has no %s: want NAMESPACE/POD, host, or ip:ADDRESS of an external host that it has", s.Name, target)
}
