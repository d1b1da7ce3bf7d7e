package xdpprog

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Config is what the programs and maps are built with.
type Config struct {
	PinPath          string // directory on a bpffs
	Workers          int
	Offload          bool // consult the flow cache
	FailOpen         bool // no worker: let new flows through
	Shortcut         bool // from pod to pod of this node around the stack
	Flows            int  // entries of the flow cache
	Denied           int  // entries of the cache of denied flows
	Admits           int  // pairs whose flows are admitted in the kernel
	Fragments        int  // datagrams whose fragments are followed
	Endpoints        int  // pods of this node
	HeartbeatTimeout time.Duration
	DenyTTL          time.Duration
	MissRate         uint32 // new flows a second and hook of a pod; 0: unlimited
	MissBurst        uint32
	Uplinks          bool // note what pods ask for, which uplinks must know
}

// Objects are the loaded programs and maps. The maps are pinned and shared
// with the programs of an agent that ran before.
type Objects struct {
	cfg     Config
	seed    uint64
	progs   sluicePrograms
	maps    sluiceMaps
	vars    sluiceVariables
	beats   []uint64
	asked   []uint64 // nil without uplinks
	addrs   addrs
	adopted bool
}

// Load loads the programs, adopting the maps pinned at cfg.PinPath. Maps that
// no longer fit the configuration, or whose types have other fields than ours,
// are replaced; replaced names them.
func Load(cfg Config) (o *Objects, replaced []string, err error) {
	if cfg.Workers < 1 || cfg.Workers > MaxWorkers {
		return nil, nil, fmt.Errorf("load programs: %d workers: want 1 to %d", cfg.Workers, MaxWorkers)
	}
	mapDir := filepath.Join(cfg.PinPath, "maps")
	if err := CheckPinPath(cfg.PinPath); err != nil {
		return nil, nil, err
	}
	for _, dir := range []string{mapDir, filepath.Join(cfg.PinPath, "links")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, fmt.Errorf("create pin directory: %w", err)
		}
	}
	o = &Objects{cfg: cfg}
	if _, err := os.Stat(filepath.Join(mapDir, "flows")); err == nil {
		o.adopted = true
	}
	spec, err := o.spec()
	if err != nil {
		return nil, nil, err
	}
	replace := func(name string) error {
		for _, name := range append(dependents[name], name) {
			err := os.Remove(filepath.Join(mapDir, name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("replace pinned map %s: %w", name, err)
			}
			if err == nil {
				replaced = append(replaced, name)
			}
		}
		return nil
	}
	others, err := otherLayouts(mapDir, spec)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range others {
		if err := replace(name); err != nil {
			return nil, replaced, err
		}
	}
	var objs sluiceObjects
	for {
		err = spec.LoadAndAssign(&objs, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: mapDir}})
		name := incompatible(err, spec)
		if name == "" {
			break
		}
		if err := replace(name); err != nil {
			return nil, replaced, err
		}
	}
	if err != nil {
		return nil, replaced, fmt.Errorf("load programs: %w", err)
	}
	o.progs, o.maps, o.vars = objs.sluicePrograms, objs.sluiceMaps, objs.sluiceVariables
	if o.beats, err = mmapHeartbeats(o.maps.Heartbeats.FD()); err != nil {
		return nil, replaced, errors.Join(err, objs.Close())
	}
	if cfg.Uplinks {
		if o.asked, err = mmapAsked(o.maps.Asked.FD(), cfg.Endpoints+1); err != nil {
			return nil, replaced, errors.Join(err, unmapHeartbeats(o.beats), objs.Close())
		}
	}
	if err := o.readAddrs(); err != nil {
		return nil, replaced, errors.Join(err, o.Close())
	}
	return o, replaced, nil
}

// dependents are the maps whose entries make no sense without those of another
// one: in a new map of endpoints slots are given out anew and generations start
// again, and what an old one admitted would pass for admitted by new rules.
var dependents = map[string][]string{"endpoints": {"flows", "denied", "admits", "links", "own_addrs", "buckets", "pods", "asked"}}

// spec sizes the maps, pins them and fills the programs' constants in.
func (o *Objects) spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadSluice()
	if err != nil {
		return nil, fmt.Errorf("read programs: %w", err)
	}
	for name, m := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			m.Pinning = ebpf.PinByName
		}
	}
	size := map[string]int{
		"flows": o.cfg.Flows, "denied": o.cfg.Denied, "frags": o.cfg.Fragments, "admits": o.cfg.Admits,
		"endpoints": o.cfg.Endpoints + 1, "links": o.cfg.Endpoints + 1,
		"buckets": 2 * (o.cfg.Endpoints + 1), "own_addrs": 8 * (o.cfg.Endpoints + 1), "pods": 8 * (o.cfg.Endpoints + 1),
		"asked": 1, "pod_xsks": o.cfg.Endpoints + 1,
	}
	if o.cfg.Uplinks {
		size["asked"] = o.cfg.Endpoints + 1
	}
	for name, n := range size {
		if n < 1 {
			return nil, fmt.Errorf("map %s: size %d: want 1 or more", name, n)
		}
		spec.Maps[name].MaxEntries = uint32(n)
	}
	frags := haveFrags()
	if !frags {
		for _, p := range spec.Programs {
			p.Flags &^= unix.BPF_F_XDP_HAS_FRAGS
		}
	}
	kernCtx := haveKernCtx()
	if !kernCtx {
		for _, p := range spec.Programs {
			forgetKernCtx(p)
		}
	}
	boot := bootSecret()
	o.seed = boot
	flag := func(b bool) uint8 {
		if b {
			return 1
		}
		return 0
	}
	return spec, spec.Variables["cfg"].Set(sluiceConfig{
		HeartbeatTimeoutNs: uint64(o.cfg.HeartbeatTimeout),
		DenyTtlNs:          uint64(o.cfg.DenyTTL),
		HashSeed:           boot,
		ResumeMark:         uint32(boot>>32) | 1,
		Workers:            uint32(o.cfg.Workers),
		MissRate:           o.cfg.MissRate,
		MissBurst:          o.cfg.MissBurst,
		Offload:            flag(o.cfg.Offload),
		FailOpen:           flag(o.cfg.FailOpen),
		Shortcut:           flag(o.cfg.Shortcut),
		Uplinks:            flag(o.cfg.Uplinks),
		XdpFrags:           flag(frags),
		KernCtx:            flag(kernCtx),
	})
}

// bootSecret is the same for all agents of one boot, so that the programs of
// an agent and of its successor agree while one replaces the other.
func bootSecret() uint64 {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		id = []byte("no boot id")
	}
	h := fnv.New64a()
	h.Write([]byte("sluice"))
	h.Write(id)
	return h.Sum64()
}

// incompatible names the pinned map that err complains about, or "".
func incompatible(err error, spec *ebpf.CollectionSpec) string {
	if !errors.Is(err, ebpf.ErrMapIncompatible) {
		return ""
	}
	for name := range spec.Maps {
		if strings.Contains(err.Error(), "map "+name+":") {
			return name
		}
	}
	return ""
}

// CheckPinPath reports why a folder, which may be missing yet, can't hold pins.
func CheckPinPath(dir string) error {
	var st unix.Statfs_t
	at := dir
	for {
		err := unix.Statfs(at, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || at == "/" || at == "." {
			return fmt.Errorf("look at pin path %s: %w", dir, err)
		}
		at = filepath.Dir(at)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("pin path %s is not on a bpffs: mount -t bpf bpf %s", dir, filepath.Dir(dir))
	}
	return nil
}

// Adopted reports whether the maps of an earlier agent were found.
func (o *Objects) Adopted() bool { return o.adopted }

// Seed is the seed that Owner takes.
func (o *Objects) Seed() uint64 { return o.seed }

// Close releases the agent's references. What is pinned or attached stays.
func (o *Objects) Close() error {
	err := errors.Join(unmapHeartbeats(o.beats), unmapAsked(o.asked))
	return errors.Join(err, o.progs.Close(), o.maps.Close())
}

// Remove deletes every pin below path, and so detaches and frees all that no
// one else holds. It is not an error if there is nothing.
func Remove(path string) error {
	var errs []error
	for _, sub := range []string{"links", "maps"} {
		if err := os.RemoveAll(filepath.Join(path, sub)); err != nil {
			errs = append(errs, fmt.Errorf("remove pins: %w", err))
		}
	}
	return errors.Join(errs...)
}
