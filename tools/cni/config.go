package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sluice-net/sluice/control"
)

// What the plugin does when no agent answers.
const (
	// AwayFail makes ADD fail: the runtime tries again.
	AwayFail = "fail"
	// AwayClosed lets the pod start behind a link that the plugin itself has
	// closed, until an agent attaches it.
	AwayClosed = "closed"
)

// Conf is the plugin's part of a network configuration list.
type Conf struct {
	types.PluginConf

	Socket      string `json:"socket"`      // of the agent's API
	PinPath     string `json:"pinPath"`     // the agent's folder on a bpffs
	Timeout     string `json:"timeout"`     // of an ADD, such as "10s"
	OnAgentAway string `json:"onAgentAway"` // fail or closed

	RawPrev json.RawMessage `json:"-"` // prevResult as it came
	timeout time.Duration
}

// defaultTimeout is shorter than runtimes' own patience, so that the plugin's
// error is the one that is seen.
const defaultTimeout = 20 * time.Second

// parse reads a configuration over the defaults of an agent, and reports every
// fault at once.
func parse(stdin []byte) (*Conf, *types.Error) {
	agent := control.Default()
	c := &Conf{Socket: agent.Socket, PinPath: agent.PinPath, Timeout: defaultTimeout.String(), OnAgentAway: AwayFail}
	if err := json.Unmarshal(stdin, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "sluice-cni: decode network configuration", err.Error())
	}
	var errs []error
	for field, path := range map[string]string{"socket": c.Socket, "pinPath": c.PinPath} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s %q: want an absolute path", field, path))
		}
	}
	var err error
	if c.timeout, err = time.ParseDuration(c.Timeout); err != nil || c.timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout %q: want a positive duration such as \"10s\"", c.Timeout))
	}
	if c.OnAgentAway != AwayFail && c.OnAgentAway != AwayClosed {
		errs = append(errs, fmt.Errorf("onAgentAway %q: want %q or %q", c.OnAgentAway, AwayFail, AwayClosed))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "sluice-cni: invalid network configuration", err.Error())
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "sluice-cni: decode prevResult", err.Error())
	}
	var raw struct {
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(stdin, &raw); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "sluice-cni: decode prevResult", err.Error())
	}
	c.RawPrev = raw.PrevResult
	return c, nil
}

// identity is what Kubernetes' runtimes say of the pod in CNI_ARGS.
type identity struct{ namespace, name, uid string }

func parseArgs(args string) (id identity) {
	for _, pair := range strings.Split(args, ";") {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "K8S_POD_NAMESPACE":
			id.namespace = value
		case "K8S_POD_NAME":
			id.name = value
		case "K8S_POD_UID":
			id.uid = value
		}
	}
	return id
}
