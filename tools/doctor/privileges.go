package doctor

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-net/sluice/xdpprog"
)

// capabilities that the agent uses, and for what: those of the manifests, but for
// CAP_IPC_LOCK, which memlock looks at.
var capabilities = []struct {
	bit  int
	name string
	what string
}{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "links, programs on them, routes"},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", "AF_XDP sockets"},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", "loading programs and maps, looking into sandboxes"},
}

func (r *Report) privileges(o *Options) {
	mask, err := effective(o.read("/proc/self/status"))
	if err != nil {
		r.add("limits", "capabilities", Warn, err.Error(), "")
	} else {
		var lacks []string
		for _, c := range capabilities {
			if mask&(1<<c.bit) == 0 {
				lacks = append(lacks, c.name+" ("+c.what+")")
			}
		}
		if len(lacks) > 0 {
			r.add("limits", "capabilities", Warn, "this process lacks "+strings.Join(lacks, ", "),
				"run the doctor as root, and give the agent these capabilities")
		} else {
			r.add("limits", "capabilities", OK, "all that the agent uses", "")
		}
	}
	r.memlock(o)
	switch v := o.read("/proc/sys/net/core/bpf_jit_enable"); v {
	case "0":
		r.add("limits", "BPF compiler", Warn, "off", "sysctl -w net.core.bpf_jit_enable=1")
	case "":
	default:
		r.add("limits", "BPF compiler", OK, "on", "")
	}
}

// effective reads the effective capabilities from /proc/self/status.
func effective(status string) (uint64, error) {
	for _, line := range strings.Split(status, "\n") {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		}
	}
	return 0, errors.New("no CapEff in /proc/self/status")
}

func (r *Report) memlock(o *Options) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err != nil {
		r.add("limits", "locked memory", Warn, err.Error(), "")
		return
	}
	// Packet memory is accounted to the user unless it may exceed the limit.
	const want = 256 << 20
	value := "unlimited"
	if lim.Cur != math.MaxUint64 {
		value = fmt.Sprintf("%d MiB", lim.Cur>>20)
	}
	mask, _ := effective(o.read("/proc/self/status"))
	if lim.Cur < want && mask&(1<<unix.CAP_IPC_LOCK) == 0 {
		r.add("limits", "locked memory", Warn, value, "packet memory is locked: set LimitMEMLOCK=infinity, or give CAP_IPC_LOCK")
		return
	}
	if lim.Cur < want {
		value += ", which CAP_IPC_LOCK exceeds"
	}
	r.add("limits", "locked memory", OK, value, "")
}

// pins looks at the bpffs that keeps programs and maps over restarts.
func (r *Report) pins(o *Options) {
	if err := xdpprog.CheckPinPath(o.PinPath); err != nil {
		r.add("bpffs", o.PinPath, Fault, err.Error(), "mount it, also at boot, and into the agent's container")
		return
	}
	value := "there, no agent has run yet"
	if entries, err := os.ReadDir(o.PinPath + "/links"); err == nil {
		value = count(len(entries), "pinned program")
	}
	r.add("bpffs", o.PinPath, OK, value, "")
}
