package control

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"k8s.io/utils/cpuset"
	"sigs.k8s.io/yaml"

	"github.com/sluice-net/sluice/control/forward"
	"github.com/sluice-net/sluice/control/link"
	"github.com/sluice-net/sluice/control/metrics"
	"github.com/sluice-net/sluice/control/observe/hubble"
	"github.com/sluice-net/sluice/control/web"
	"github.com/sluice-net/sluice/dataplane"
)

// What the agent leaves behind when it is told to end.
const (
	// ExitKeep leaves programs, maps and ports: established flows go on, new
	// ones meet FailOpen, a successor takes over without a gap.
	ExitKeep = "keep"
	// ExitCleanup removes every trace: nothing is enforced any more.
	ExitCleanup = "cleanup"
)

// Config is the agent's configuration file. Fields that are absent have the
// values of Default.
type Config struct {
	NodeName string `json:"nodeName"`

	// Where objects come from: one of the two.
	Manifests  string `json:"manifests,omitempty"`  // folder or file
	Kubeconfig string `json:"kubeconfig,omitempty"` // file, or in-cluster
	// Report: say in the cluster which policies are not in force as written.
	Report          bool   `json:"report"`
	ReportNamespace string `json:"reportNamespace"` // of the lease by which the writer is found

	Socket  string `json:"socket"`  // of the local API
	PinPath string `json:"pinPath"` // folder on a bpffs
	OnExit  string `json:"onExit"`  // keep or cleanup

	Offload  bool `json:"offload"`
	FailOpen bool `json:"failOpen"`
	Shortcut bool `json:"shortcut"`
	PodLinks int  `json:"podLinks"` // without offload: pods a worker hears on their own links at a time, without TSO meanwhile
	Workers  int  `json:"workers"`
	// WorkerCPUs is a list of CPUs as the kernel writes it ("2-3,6"): each worker
	// runs on one of them, in turns; "": wherever the kernel has them run.
	WorkerCPUs string `json:"workerCPUs,omitempty"`
	// Uplinks are NICs whose traffic for pods is judged in their drivers already.
	Uplinks []string `json:"uplinks,omitempty"`
	Clsact  bool     `json:"clsact"` // attach by clsact filters, as kernels before 6.6 need it

	// NFLogGroup is the group of NFLOG by which the host tells what it drops of
	// calls of Services; 0: it is counted only.
	NFLogGroup int `json:"nflogGroup"`

	NetNS []string `json:"netns"` // folders of the pods' network namespaces

	MaxPods       int  `json:"maxPods"`
	Frames        int  `json:"frames"`        // of each worker's UMEM
	FrameSize     int  `json:"frameSize"`     // bytes
	HugePages     bool `json:"hugePages"`     // for the UMEM, if there are any
	FlowsPerQueue int  `json:"flowsPerQueue"` // entries of each worker's flow table
	FlowCache     int  `json:"flowCache"`     // entries of the kernel's flow cache
	AdmitCache    int  `json:"admitCache"`    // pairs whose flows the kernel admits by itself
	DenyCache     int  `json:"denyCache"`
	Fragments     int  `json:"fragments"`
	EventRing     int  `json:"eventRing"`
	History       int  `json:"history"`   // events that the APIs remember, some 400 bytes each
	MissRate      int  `json:"missRate"`  // new flows a second, of a pod and to it; 0: unlimited
	MissBurst     int  `json:"missBurst"` // and at once

	Events Events `json:"events"` // which the history keeps: all, denied or none
	Hubble Hubble `json:"hubble"` // Hubble's API
	Names  Names  `json:"names"`  // what is learned from DNS

	Metrics metrics.Config `json:"metrics"` // of Prometheus
	Web     web.Config     `json:"web"`     // the page that shows flows

	DenyReport       Duration `json:"denyReport"`
	HeartbeatTimeout Duration `json:"heartbeatTimeout"`
}

// Duration is a time.Duration that reads and writes "1.5s".
type Duration time.Duration

// UnmarshalJSON accepts what time.ParseDuration does.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := yaml.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration %s: want a string such as \"1.5s\"", b)
	}
	v, err := time.ParseDuration(s)
	*d = Duration(v)
	return err
}

// MarshalJSON writes it as time.Duration prints it.
func (d Duration) MarshalJSON() ([]byte, error) {
	return []byte(`"` + time.Duration(d).String() + `"`), nil
}

// Default returns the configuration of a node that says nothing else.
func Default() Config {
	name, _ := os.Hostname()
	d := dataplane.Default()
	return Config{
		NodeName: name, Report: true, ReportNamespace: "kube-system", Socket: "/run/sluice/sluice.sock", PinPath: "/sys/fs/bpf/sluice", OnExit: ExitKeep,
		Offload: d.Offload, FailOpen: d.FailOpen, Shortcut: d.Shortcut, PodLinks: d.PodLinks, Workers: d.Workers,
		NFLogGroup: forward.DefaultGroup, NetNS: link.DefaultNetNS(), MaxPods: d.Endpoints, Frames: d.Frames, FrameSize: d.FrameSize,
		HugePages: d.HugePages, FlowsPerQueue: d.Flow.Capacity, FlowCache: d.FlowCache,
		AdmitCache: d.AdmitCache, DenyCache: d.DenyCache, Fragments: d.Fragments, EventRing: d.EventRing, History: 1 << 14,
		MissRate: d.MissRate, MissBurst: d.MissBurst, DenyReport: Duration(d.DenyReport),
		HeartbeatTimeout: Duration(d.HeartbeatTimeout),
		Events:           EventsAll,
		Names:            defaultNames(),
		Hubble:           Hubble{Socket: "/run/sluice/hubble.sock", Streams: hubble.DefaultStreams},
		Metrics:          metrics.Default(),
		Web:              web.Default(),
	}
}

// ReadConfig reads a YAML file over the defaults. Unknown fields are errors.
func ReadConfig(path string) (Config, error) {
	c := Default()
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// maxHistory is the most events that the APIs remember: six gigabytes.
const maxHistory = 1 << 24

// Validate reports every fault at once.
func (c Config) Validate() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("nodeName: missing"))
	}
	if c.Manifests != "" && c.Kubeconfig != "" {
		errs = append(errs, errors.New("manifests and kubeconfig: objects come from one of them only"))
	}
	if c.Report && c.ReportNamespace == "" {
		errs = append(errs, errors.New("reportNamespace: missing"))
	}
	for field, path := range map[string]string{"socket": c.Socket, "pinPath": c.PinPath} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("%s %q: want an absolute path", field, path))
		}
	}
	if c.OnExit != ExitKeep && c.OnExit != ExitCleanup {
		errs = append(errs, fmt.Errorf("onExit %q: want %s or %s", c.OnExit, ExitKeep, ExitCleanup))
	}
	if c.NFLogGroup < 0 || c.NFLogGroup > math.MaxUint16 {
		errs = append(errs, fmt.Errorf("nflogGroup %d: want 0 to %d", c.NFLogGroup, math.MaxUint16))
	}
	if c.History < 1 || c.History > maxHistory {
		errs = append(errs, fmt.Errorf("history %d: want 1 to %d", c.History, maxHistory))
	}
	if c.Events.interest() == 0 && c.Events != EventsNone {
		errs = append(errs, fmt.Errorf("events %q: want %s, %s or %s", c.Events, EventsAll, EventsDenied, EventsNone))
	}
	if err := c.hubble().Validate(); err != nil {
		errs = append(errs, fmt.Errorf("hubble: %w", err))
	}
	if err := c.Metrics.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("metrics: %w", err))
	}
	if err := c.names().Validate(); err != nil {
		errs = append(errs, fmt.Errorf("names: %w", err))
	}
	if err := c.Web.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("web: %w", err))
	}
	if _, err := cpuset.Parse(c.WorkerCPUs); err != nil {
		errs = append(errs, fmt.Errorf("workerCPUs %q: want a list of CPUs such as 2-3,6: %w", c.WorkerCPUs, err))
	}
	return errors.Join(append(errs, c.dataplane().Validate())...)
}

func (c Config) dataplane() dataplane.Config {
	d := dataplane.Default()
	d.PinPath, d.Workers, d.Offload, d.FailOpen, d.Shortcut = c.PinPath, c.Workers, c.Offload, c.FailOpen, c.Shortcut
	d.PodLinks = c.PodLinks
	if cpus, err := cpuset.Parse(c.WorkerCPUs); err == nil {
		d.CPUs = cpus.List()
	}
	d.Endpoints, d.Frames, d.FrameSize, d.HugePages = c.MaxPods, c.Frames, c.FrameSize, c.HugePages
	d.Flow.Capacity, d.FlowCache, d.DenyCache, d.Fragments = c.FlowsPerQueue, c.FlowCache, c.DenyCache, c.Fragments
	d.Uplinks = c.Uplinks
	d.AdmitCache, d.Clsact = c.AdmitCache, c.Clsact
	d.EventRing, d.MissRate, d.MissBurst = c.EventRing, c.MissRate, c.MissBurst
	d.DenyReport, d.HeartbeatTimeout = time.Duration(c.DenyReport), time.Duration(c.HeartbeatTimeout)
	d.AnswerHold = time.Duration(c.Names.MaxHold)
	return d
}
