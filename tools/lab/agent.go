package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
)

// agent is the agent's process, in the host's namespace.
type agent struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // how it ended, valid after done
}

func agentLogPath(name string) string { return filepath.Join(dirOf(name), "agent.log") }

// agentConfig is the agent's configuration file.
type agentConfig struct {
	NodeName string `json:"nodeName"`
	Socket   string `json:"socket"`
	PinPath  string `json:"pinPath"`
	Offload  bool   `json:"offload"`
	FailOpen bool   `json:"failOpen"`
	Workers  int    `json:"workers"`
	Hubble   struct {
		Socket string `json:"socket"`
	} `json:"hubble"`
	Web struct {
		Listen string `json:"listen"`
	} `json:"web"`
}

// startAgent starts the agent on the mirrored manifests.
func (l *Lab) startAgent() error {
	conf := agentConfig{
		NodeName: l.nodeName, Socket: socketPath(l.opts.Name), PinPath: bpfDir(l.opts.Name),
		Offload: l.opts.Offload, FailOpen: l.opts.FailOpen, Workers: 1,
	}
	conf.Hubble.Socket = hubblePath(l.opts.Name)
	if l.opts.Web != "" {
		conf.Web.Listen = "unix://" + webPath(l.opts.Name)
	}
	cfg, err := yaml.Marshal(conf)
	if err != nil {
		return fmt.Errorf("encode configuration of the agent: %w", err)
	}
	path := filepath.Join(dirOf(l.opts.Name), "agent.yaml")
	if err := replaceFile(path, cfg); err != nil {
		return err
	}
	log, err := os.OpenFile(agentLogPath(l.opts.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the agent's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(l.opts.Self, "agent", "--manifests", l.mirror.dir, "--config", path)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	// Ctrl-C at a terminal is for the lab, which ends the agent in good order.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGTERM}
	a := &agent{cmd: cmd, done: make(chan struct{})}
	if err := a.start(l.net.Host()); err != nil {
		return fmt.Errorf("start agent: %w", err)
	}
	l.agent = a
	linkHubble(l.opts.Name)
	return writeAgentPID(l.opts.Name, a.pid())
}

// start starts the process from a thread that lives as long as it: the kernel
// sends the signal of a parent's death when the thread that forked ends.
func (a *agent) start(host *netlab.Namespace) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := host.Enter()
		if err == nil {
			err = a.cmd.Start()
		}
		started <- err
		if err == nil {
			a.err = a.cmd.Wait()
			close(a.done)
		}
	}()
	return <-started
}

func (a *agent) pid() int { return a.cmd.Process.Pid }

// stop ends the process and returns when it is gone.
func (a *agent) stop() error {
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := a.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop agent: %w", err)
		}
		select {
		case <-a.done:
			return nil
		case <-time.After(endPatience):
		}
	}
	return errors.New("stop agent: it doesn't end")
}

// The agent has this long to enforce what it was given.
const enforcePatience = 60 * time.Second

// expectation is what the agent's status must say when all is enforced.
type expectation struct {
	agent  *agent
	digest string
	pods   int
	log    string
}

func (l *Lab) expectation() expectation {
	l.node.Lock()
	defer l.node.Unlock()
	e := expectation{agent: l.agent, digest: l.digest, log: agentLogPath(l.opts.Name)}
	for _, p := range l.pods {
		if !p.spec.hostNetwork {
			e.pods++
		}
	}
	return e
}

// WaitEnforced returns when the agent enforces the manifests, as the lab last
// applied them, on all pods.
func (l *Lab) WaitEnforced(ctx context.Context) error {
	return l.expectation().await(ctx, l.client)
}

func (e expectation) await(ctx context.Context, client *api.Client) error {
	limit, cancel := context.WithTimeout(ctx, enforcePatience)
	defer cancel()
	var last error
	for tick := time.Tick(25 * time.Millisecond); ; {
		status, err := client.Status(limit)
		if err == nil {
			if err = e.lacks(&status); err == nil {
				return nil
			}
		}
		if limit.Err() == nil {
			last = err
		}
		select {
		case <-e.agent.done:
			return fmt.Errorf("agent ended: %v\n%s", e.agent.err, tail(e.log, 2000))
		case <-limit.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("agent does not enforce all after %v: %w\n%s", enforcePatience, last, tail(e.log, 2000))
		case <-tick:
		}
	}
}

// lacks says what is missing until all is enforced.
func (e expectation) lacks(s *api.Status) error {
	switch {
	case !s.Ready:
		return errors.New("not ready")
	case s.Digest != e.digest:
		return fmt.Errorf("has manifests %.12s, not %.12s", s.Digest, e.digest)
	case len(s.Pending) > 0:
		return fmt.Errorf("pods without a link: %v", s.Pending)
	case s.Endpoints != e.pods:
		return fmt.Errorf("has %d pods, not %d", s.Endpoints, e.pods)
	}
	return nil
}
