// Package lab runs a node in network namespaces from a folder of manifests:
// every Pod becomes a namespace with its addresses, every declared port a real
// server, and an agent enforces the policies between them. A lab belongs to
// the process that brought it up and ends with it, however it ends: a janitor
// process cleans up after an owner that can't do so itself.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/bench/netlab"
	"github.com/sluice-net/sluice/control/api"
)

// DefaultName is the name of a lab that was not given one.
const DefaultName = "default"

// Options describe a lab.
type Options struct {
	Name      string
	Manifests string // a file, or a folder that is watched
	// Files, if set, are put into a folder of the lab's own, which then is
	// Manifests: they go with the lab.
	Files    fs.FS
	CNI      netlab.Shape
	MTU      int
	Offload  bool
	FailOpen bool
	Web      string // loopback host:port where the agent's web page is served; "" for nowhere
	// Self is the sluice binary: its agent and its janitor are started.
	Self string
	// Message is told, from any goroutine, what a user should know; may be nil.
	Message func(text string)
	// Stage is told what Up is doing; may be nil.
	Stage func(text string)
}

// Default returns the options of a lab for the manifests.
func Default(manifests string) Options {
	return Options{
		Name: DefaultName, Manifests: manifests, CNI: netlab.Routed, MTU: 1500, Offload: true,
		Message: func(string) {}, Stage: func(string) {},
	}
}

// Lab is a lab that is up.
type Lab struct {
	opts Options
	run  *run
	// nodeName is the node that the lab is.
	nodeName string
	janitor  *janitor
	client   *api.Client
	net      *netlab.Net
	web      *webDoor // or nil

	node    sync.Mutex // guards what follows
	pods    map[string]*pod
	servers servers
	shared  map[*netlab.External]int // pods in the network of another node
	// lastPort is the last source port that a probe used, by namespace.
	lastPort map[string]uint16
	pool     *pool
	mirror   mirror
	agent    *agent
	changes  changes // what of the manifests the agent gets otherwise
	sum      string  // of the manifests as last applied
	digest   string  // of the agent's copy of them
	started  time.Time

	mu    sync.Mutex // guards state, inits
	state State
	inits map[uint32]chan<- struct{} // by initiate tag

	closing sync.Once
	closed  error // what Close returned
}

// Up brings a lab up and returns when the agent enforces the policies on all of
// its pods. The caller must Close it; a lab that did not come up has left
// nothing.
func Up(ctx context.Context, opts Options) (_ *Lab, err error) {
	l := &Lab{
		opts: opts, started: time.Now(), client: api.NewClient(socketPath(opts.Name)),
		pods: map[string]*pod{}, servers: servers{}, shared: map[*netlab.External]int{}, lastPort: map[string]uint16{}, inits: map[uint32]chan<- struct{}{},
	}
	if err := l.prepare(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	opts.Stage("reading manifests")
	m, c, err := l.readManifests()
	if err != nil {
		return nil, err
	}
	opts.Stage("building the node")
	cfg := netlab.Default(opts.Name)
	cfg.Shape, cfg.MTU = opts.CNI, opts.MTU
	l.nodeName = c.nodeName()
	if names := c.nodeNames(); len(names) > 1 {
		opts.Message(fmt.Sprintf("pods are of the nodes %s: a lab is one node, here %s", strings.Join(names, ", "), l.nodeName))
	}
	cfg.NodeAddrs = c.nodeAddrs(l.nodeName, cfg.NodeAddrs)
	if l.net, err = netlab.New(cfg); err != nil {
		return nil, err
	}
	l.pool = newPool(l.nodeName, cfg.NodeAddrs)
	if err := l.apply(ctx, m, c.pods); err != nil {
		return nil, err
	}
	if err := l.publish(); err != nil { // so that it can be found, and ended
		return nil, err
	}
	opts.Stage("starting the agent")
	if err := l.startAgent(); err != nil {
		return nil, err
	}
	if err := l.WaitEnforced(ctx); err != nil {
		return nil, err
	}
	l.tellRejected(ctx)
	if opts.Web != "" {
		if l.web, err = openWebDoor(opts.Web, webPath(opts.Name)); err != nil {
			return nil, err
		}
	}
	return l, l.publish()
}

// readManifests reads what the lab is made from for the first time: a pod that
// can't be built is an error. Documents that can't be read are left out, as the
// agent does; it says so.
func (l *Lab) readManifests() (*manifests, *cluster, error) {
	if l.opts.Files != nil {
		l.opts.Manifests = filepath.Join(dirOf(l.opts.Name), "source")
		if err := os.CopyFS(l.opts.Manifests, l.opts.Files); err != nil {
			return nil, nil, fmt.Errorf("put manifests in place: %w", err)
		}
	}
	path, err := filepath.Abs(l.opts.Manifests)
	if err != nil {
		return nil, nil, fmt.Errorf("find manifests: %w", err)
	}
	l.opts.Manifests = path
	m, err := readManifests(path)
	if err != nil {
		return nil, nil, err
	}
	if len(m.files) == 0 {
		return nil, nil, fmt.Errorf("read manifests: no *.yaml, *.yml or *.json file in %s", path)
	}
	c, err := m.cluster()
	if err != nil && (c.wrong || len(c.pods) == 0) {
		return nil, nil, fmt.Errorf("read manifests: %w", err)
	}
	return m, c, nil
}

// prepare takes the lab's name, with folder, mount and janitor.
func (l *Lab) prepare() (err error) {
	if l.janitor, err = startJanitor(l.opts.Self, l.opts.Name); err != nil {
		return err
	}
	if l.run, err = acquire(l.opts.Name); err != nil {
		return errors.Join(err, l.janitor.dismiss())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, dir := range []string{dirOf(l.opts.Name), bpfDir(l.opts.Name)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("create state of lab %s: %w", l.opts.Name, err)
		}
	}
	if err := unix.Mount("bpf", bpfDir(l.opts.Name), "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	l.mirror, err = newMirror(filepath.Join(dirOf(l.opts.Name), "manifests"))
	return err
}

// Manifests is where the lab's manifests are.
func (l *Lab) Manifests() string { return l.opts.Manifests }

// Pod returns a pod's namespace and addresses, or nil, nil.
func (l *Lab) Pod(key string) (*netlab.Namespace, []netip.Addr) {
	l.node.Lock()
	defer l.node.Unlock()
	if p := l.pods[key]; p != nil {
		return p.ns, p.spec.addrs
	}
	return nil, nil
}

// Client talks to the lab's agent.
func (l *Lab) Client() *api.Client { return l.client }

// LogPath is where an owner in the background may write.
func (l *Lab) LogPath() string { return filepath.Join(dirOf(l.opts.Name), "lab.log") }

// State returns a copy of what the lab says about itself.
func (l *Lab) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Pods, s.Externals, s.Messages = slices.Clone(s.Pods), slices.Clone(s.Externals), slices.Clone(s.Messages)
	return s
}

// publish writes the lab's state for other commands. The caller holds node, as
// all that builds the lab does.
func (l *Lab) publish() error {
	s := State{
		Name: l.opts.Name, PID: os.Getpid(), Started: l.started, Manifests: l.opts.Manifests,
		CNI: l.opts.CNI, MTU: l.opts.MTU, Offload: l.opts.Offload, FailOpen: l.opts.FailOpen,
		Socket: socketPath(l.opts.Name), AgentLog: agentLogPath(l.opts.Name), Host: l.net.Host().Name(),
		Pods: []Pod{},
	}
	if l.agent != nil {
		s.AgentPID = l.agent.pid()
	}
	for _, p := range l.pods {
		s.Pods = append(s.Pods, p.describe())
	}
	slices.SortFunc(s.Pods, comparePods)
	for _, e := range l.net.Externals() {
		for _, a := range e.Addrs() {
			s.Externals = append(s.Externals, External{Address: a, Netns: e.Namespace().Name()})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Messages = l.state.Messages
	l.state = s
	return s.write()
}

// Close takes the lab down: afterwards nothing of it is left.
func (l *Lab) Close() error {
	l.closing.Do(func() {
		var errs []error
		if l.web != nil {
			errs = append(errs, l.web.listener.Close())
		}
		if l.agent != nil {
			errs = append(errs, l.agent.stop())
		}
		errs = append(errs, l.servers.closeAll())
		if l.net != nil {
			// Processes keep namespaces alive, so they end first.
			errs = append(errs, endProcesses(l.opts.Name), l.net.Close())
		}
		errs = append(errs, clean(l.opts.Name), l.run.release(), l.janitor.dismiss())
		l.closed = errors.Join(errs...)
	})
	return l.closed
}

// AddExternal builds a host beyond the node's uplink, which goes with the lab.
func (l *Lab) AddExternal(addrs ...netip.Addr) (*netlab.External, error) {
	l.node.Lock()
	defer l.node.Unlock()
	return l.net.AddExternal(addrs...)
}
