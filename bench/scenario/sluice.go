package scenario

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/bench/listen"
	"github.com/sluice-net/sluice/control/api"
)

// agentMode is what differs between the variants of Sluice.
type agentMode struct {
	name, about string
	offload     bool
	shortcut    bool
	workers     int
	events      string     // which the agent remembers; empty: all, its default
	listens     listenFunc // how somebody follows its events, if anybody does
	stalled     bool       // somebody asks for its events and reads none
}

// sluice is Sluice with the workload's rules in force on pod B.
func sluice(m agentMode) System {
	return System{
		Name: m.name, About: m.about,
		Start: func(ctx context.Context, s *Stage) (Running, error) { return startAgent(ctx, s, m) },
	}
}

// agentConfig is the part of the agent's configuration file that is not left
// to its defaults.
type agentConfig struct {
	NodeName      string `json:"nodeName"`
	Socket        string `json:"socket"`
	PinPath       string `json:"pinPath"`
	Offload       bool   `json:"offload"`
	Shortcut      bool   `json:"shortcut"`
	MissRate      *int   `json:"missRate,omitempty"`
	FlowsPerQueue int    `json:"flowsPerQueue"`
	FlowCache     int    `json:"flowCache"`
	Workers       int    `json:"workers"`
	WorkerCPUs    string `json:"workerCPUs,omitempty"`
	Events        string `json:"events,omitempty"`
	Hubble        struct {
		Socket string `json:"socket"`
	} `json:"hubble"`
}

// agent is a running Sluice.
type agent struct {
	process *process
	client  *api.Client
	status  api.Status
	mounted string // bpffs of its own
	// manifests is the folder of rules that it follows.
	manifests string
	listener  *listener // to its events, if there is one
	stalled   io.Closer // who doesn't read them, likewise
}

// Both flow tables hold twice what the workload needs, and at least this.
const minFlows = 1 << 17

func startAgent(ctx context.Context, s *Stage, m agentMode) (_ Running, err error) {
	a := &agent{mounted: filepath.Join(s.dir, "bpf")}
	flows := max(minFlows, 2*s.Workload.Flows)
	c := agentConfig{
		NodeName: "bench", Socket: filepath.Join(s.dir, "agent.sock"), PinPath: a.mounted,
		Offload: m.offload, Shortcut: m.shortcut, FlowsPerQueue: flows, FlowCache: flows,
		Workers: max(m.workers, 1), Events: m.events,
	}
	if c.Workers == 1 {
		c.WorkerCPUs = strconv.Itoa(loopCPU())
	}
	if !s.Workload.Limited {
		c.MissRate = new(int) // no limit: every new flow is to be judged
	}
	c.Hubble.Socket = filepath.Join(s.dir, "hubble.sock")
	cfg, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode configuration of the agent: %w", err)
	}
	config := filepath.Join(s.dir, "agent.yaml")
	a.manifests = filepath.Join(s.dir, "manifests")
	err = errors.Join(
		os.MkdirAll(a.mounted, 0o700), os.MkdirAll(a.manifests, 0o700),
		os.WriteFile(config, cfg, 0o600),
		os.WriteFile(filepath.Join(a.manifests, "rules.yaml"), []byte(s.manifests()), 0o600),
	)
	if err != nil {
		return nil, fmt.Errorf("write files of the agent: %w", err)
	}
	if err := unix.Mount("bpf", a.mounted, "bpf", 0, ""); err != nil {
		return nil, fmt.Errorf("mount bpffs: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Stop())
		}
	}()
	a.client = api.NewClient(filepath.Join(s.dir, "agent.sock"))
	if a.process, err = startProcess(s, "agent", "--manifests", a.manifests, "--config", config); err != nil {
		return nil, err
	}
	if err := a.await(ctx, len(s.Net.Pods())); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.tail())
	}
	if m.listens != nil {
		a.listener, err = newListener(ctx, a.client, c.Hubble.Socket, m.listens)
	}
	if err == nil && m.stalled {
		a.stalled, err = listen.Stalled(ctx, c.Hubble.Socket)
	}
	return a, err
}

// await returns when the agent enforces the rules on all pods.
func (a *agent) await(ctx context.Context, pods int) error {
	const patience = 60 * time.Second // ten thousand policies take seconds
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("agent is not ready after %v", patience))
	defer cancel()
	for tick := time.Tick(20 * time.Millisecond); ; {
		var err error
		a.status, err = a.client.Status(ctx)
		if err == nil && a.status.Ready && a.status.Endpoints == pods && len(a.status.Pending) == 0 && a.alive() {
			return nil
		}
		select {
		case <-a.process.done:
			return fmt.Errorf("agent ended: %v", a.process.err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick:
		}
	}
}

func (a *agent) alive() bool {
	for _, w := range a.status.Workers {
		if !w.Alive {
			return false
		}
	}
	return len(a.status.Workers) > 0
}

// Modes implements Running.
func (a *agent) Modes() map[string]string {
	m := map[string]string{"offload": fmt.Sprint(a.status.Offload)}
	for k, v := range a.status.Modes {
		m[k] = v
	}
	for _, w := range a.status.Workers {
		m[fmt.Sprintf("worker%d", w.ID)] = w.Mode
		if w.CPU != nil {
			m[fmt.Sprintf("worker%d", w.ID)] += fmt.Sprintf(" on CPU %d", *w.CPU)
		}
	}
	if a.listener != nil {
		m["events"] = "followed"
	}
	if a.stalled != nil {
		m["events"] = "asked for, not read"
	}
	return m
}

// Stop implements Running.
func (a *agent) Stop() error {
	var errs []error
	if a.listener != nil {
		errs = append(errs, a.listener.close())
	}
	if a.stalled != nil {
		errs = append(errs, a.stalled.Close())
	}
	if a.process != nil {
		errs = append(errs, a.process.stop())
	}
	if err := unix.Unmount(a.mounted, unix.MNT_DETACH); err != nil {
		errs = append(errs, fmt.Errorf("unmount bpffs: %w", err))
	}
	return errors.Join(errs...)
}
