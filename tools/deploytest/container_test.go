package deploytest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/bench/netlab"
)

// runtimeNode is a node's kubelet and container runtime in one: it runs the
// containers of a pod as the manifest says, with crun, in the node's network.
type runtimeNode struct {
	testing.TB
	net   *netlab.Net
	image string            // root file system
	host  string            // folder that stands for the node's root
	paths map[string]string // of the node, which are elsewhere
	files map[string]string // contents of ConfigMap and token volumes, by volume: a folder
	env   []string
	count atomic.Int32
	// resolvConf is the kubelet's for pods, if it has one.
	resolvConf string
	// change is asked for each container before it runs.
	change func(spec map[string]any)
}

// object is a JSON object.
type object = map[string]any

// bind is a mount of a folder.
func bind(from, to string, options ...string) object {
	return object{"destination": to, "type": "bind", "source": from, "options": append([]string{"rbind"}, options...)}
}

// spec makes the OCI runtime specification of a container, as containerd and
// CRI-O make it of what the kubelet tells them.
func (n *runtimeNode) spec(p *corev1.PodSpec, c *corev1.Container, network *netlab.Namespace) object {
	n.Helper()
	sc := c.SecurityContext
	if sc == nil || sc.Privileged != nil && *sc.Privileged {
		n.Fatalf("%s is privileged, or doesn't say", c.Name)
	}
	caps := []string{}
	if !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		n.Fatalf("%s keeps the runtime's capabilities", c.Name)
	}
	for _, add := range sc.Capabilities.Add {
		caps = append(caps, "CAP_"+string(add))
	}
	mounts := []object{
		{"destination": "/proc", "type": "proc", "source": "proc", "options": []string{"nosuid", "noexec", "nodev"}},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	for _, m := range c.VolumeMounts {
		mounts = append(mounts, n.mount(p, m))
	}
	if dir := n.files["token"]; p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken {
		mounts = append(mounts, bind(dir, "/var/run/secrets/kubernetes.io/serviceaccount", "ro"))
	}
	if n.resolvConf != "" {
		mounts = append(mounts, bind(n.resolvConf, "/etc/resolv.conf", "ro"))
	}
	namespaces := []object{{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
		{"type": "network", "path": filepath.Join(netlab.RunDir, network.Name())}}
	user, group := sc.RunAsUser, sc.RunAsGroup
	if user == nil {
		user, group = p.SecurityContext.RunAsUser, p.SecurityContext.RunAsGroup
	}
	return object{
		"ociVersion": "1.0.2",
		"process": object{
			"user": object{"uid": *user, "gid": *group}, "args": n.expand(c, append(c.Command, c.Args...)),
			"env": append([]string{"PATH=/"}, n.environ(c)...), "cwd": "/",
			"capabilities":    object{"bounding": caps, "effective": caps, "permitted": caps},
			"noNewPrivileges": sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
			// What systemd gives services before v250.
			"rlimits": []object{{"type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 65536}},
		},
		"root":   object{"path": n.image, "readonly": sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem},
		"mounts": mounts,
		"linux": object{
			"namespaces":        namespaces,
			"rootfsPropagation": "rslave",
			"maskedPaths":       []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			"readonlyPaths":     []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			"seccomp":           n.seccomp(p, caps),
		},
	}
}

// mount finds what a volume mount mounts.
func (n *runtimeNode) mount(p *corev1.PodSpec, m corev1.VolumeMount) object {
	n.Helper()
	options := []string{}
	if m.ReadOnly {
		options = append(options, "ro")
	}
	if m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationHostToContainer {
		options = append(options, "rslave")
	} else {
		options = append(options, "rprivate")
	}
	for _, v := range p.Volumes {
		switch {
		case v.Name != m.Name:
		case v.HostPath != nil:
			return bind(n.path(v.HostPath), m.MountPath, options...)
		default:
			if n.files[v.Name] == "" {
				n.Fatalf("nothing stands for volume %s", v.Name)
			}
			return bind(n.files[v.Name], m.MountPath, append(options, "ro")...)
		}
	}
	n.Fatalf("no volume %s", m.Name)
	return nil
}

// path is where a path of the node is on this machine.
func (n *runtimeNode) path(h *corev1.HostPathVolumeSource) string {
	n.Helper()
	at, ok := n.paths[h.Path]
	if !ok {
		at = filepath.Join(n.host, h.Path)
	}
	if *h.Type == corev1.HostPathDirectoryOrCreate {
		must(n, os.MkdirAll(at, 0o755))
	}
	return at
}

func (n *runtimeNode) environ(c *corev1.Container) []string {
	out := slices.Clone(n.env)
	for _, e := range c.Env {
		if f := e.ValueFrom; f != nil && f.FieldRef != nil && f.FieldRef.FieldPath == "spec.nodeName" {
			e.Value = nodeName
		}
		out = append(out, e.Name+"="+e.Value)
	}
	return out
}

// expand replaces $(VAR), as the kubelet does.
func (n *runtimeNode) expand(c *corev1.Container, args []string) []string {
	var pairs []string
	for _, e := range n.environ(c) {
		name, value, _ := strings.Cut(e, "=")
		pairs = append(pairs, "$("+name+")", value)
	}
	out := slices.Clone(args)
	for i := range out {
		out[i] = strings.NewReplacer(pairs...).Replace(out[i])
	}
	return out
}

// crun makes a command of the runtime. It gets to see control groups version 2
// only: with both versions mounted it refuses to work, even without using them.
func (n *runtimeNode) crun(args ...string) *exec.Cmd {
	return exec.Command("unshare", append([]string{"--mount", "--propagation=slave", "sh", "-c",
		`mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec crun --cgroup-manager=disabled "$@"`, "crun",
		"--root=" + filepath.Join(n.host, "run-crun")}, args...)...)
}

// running is a container that runs.
type running struct {
	id   string
	pid  int // as this test sees it
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	out  lockedBuffer
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs a container of a pod in the node's network.
func (n *runtimeNode) start(p *corev1.PodSpec, name string) *running {
	n.Helper()
	if !p.HostNetwork {
		n.Fatal("pod is not in the node's network")
	}
	return n.startIn(p, name, n.net.Host())
}

// startIn runs a container.
func (n *runtimeNode) startIn(p *corev1.PodSpec, name string, network *netlab.Namespace) *running {
	n.Helper()
	c := container(n, p, name)
	spec := n.spec(p, c, network)
	if n.change != nil {
		n.change(spec)
	}
	r := &running{id: fmt.Sprintf("sluice-%s-%s-%d", n.net.Config().Name, name, n.count.Add(1)), done: make(chan struct{})}
	bundle := n.TempDir()
	data, err := json.Marshal(spec)
	must(n, err)
	must(n, os.WriteFile(filepath.Join(bundle, "config.json"), data, 0o644))
	pidFile := filepath.Join(bundle, "pid")
	r.cmd = n.crun("run", "--bundle="+bundle, "--pid-file="+pidFile, r.id)
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.WaitDelay = &r.out, &r.out, 10*time.Second
	must(n, r.cmd.Start())
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	eventually(n, name+" has started", func() bool {
		select {
		case <-r.done:
			return true
		default:
		}
		text, err := os.ReadFile(pidFile)
		if err != nil || len(text) == 0 {
			return false
		}
		r.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		return err == nil
	})
	n.Cleanup(func() {
		n.kill(r, unix.SIGKILL)
		if n.Failed() {
			n.Logf("%s: %v\n%s", name, r.err, r.out.String())
		}
	})
	return r
}

// kill sends a signal that ends a container, and waits for that.
func (n *runtimeNode) kill(r *running, s unix.Signal) {
	n.Helper()
	select {
	case <-r.done:
		return
	default:
	}
	// It may just have ended by itself, which its runtime has yet to see.
	if err := unix.Kill(r.pid, s); err != nil && err != unix.ESRCH {
		n.Errorf("kill %s: %v", r.id, err)
	}
	select {
	case <-r.done:
	case <-time.After(patience):
		_ = unix.Kill(r.pid, unix.SIGKILL)
		n.Errorf("%s still runs after %v: %s", r.id, s, r.out.String())
		<-r.done
	}
}

// complete runs a container that ends by itself.
func (n *runtimeNode) complete(p *corev1.PodSpec, name string) string {
	n.Helper()
	r := n.start(p, name)
	<-r.done
	if r.err != nil {
		n.Fatalf("%s: %v: %s", name, r.err, r.out.String())
	}
	return r.out.String()
}
