package xdpprog

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Neighbour is a program on a link, Sluice's own or another's.
type Neighbour struct {
	ID   uint32
	Name string
	Own  bool
	At   string // tcx-ingress or tcx-egress
}

// ownNames are what the kernel keeps of the programs' names: 15 bytes.
var ownNames = map[string]bool{"divert_from_pod": true, "divert_to_pod": true, "deliver": true, "steer": true, "uplink_steer": true, "sluice_wall": true}

// OnLink lists the tcx programs of a link in the order in which they run.
// Kernels without tcx have none.
func OnLink(ifindex int) ([]Neighbour, error) {
	var out []Neighbour
	for _, at := range []struct {
		what ebpf.AttachType
		name string
	}{{ebpf.AttachTCXIngress, "tcx-ingress"}, {ebpf.AttachTCXEgress, "tcx-egress"}} {
		list, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at.what})
		// EINVAL: it knows no such point (bpf_prog_query, kernel/bpf/syscall.c).
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
			return nil, nil
		}
		if err != nil {
			return out, fmt.Errorf("list %s programs of link %d: %w", at.name, ifindex, err)
		}
		for _, p := range list.Programs {
			name, err := ProgramName(uint32(p.ID))
			if err != nil {
				continue // gone meanwhile
			}
			out = append(out, Neighbour{ID: uint32(p.ID), Name: name, Own: ownNames[name], At: at.name})
		}
	}
	return out, nil
}

// ProgramName returns the name of a loaded program.
func ProgramName(id uint32) (string, error) {
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return "", fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return "", fmt.Errorf("describe program %d: %w", id, err)
	}
	return info.Name, nil
}

// OwnProgram reports whether a program of this name is Sluice's.
func OwnProgram(name string) bool { return ownNames[name] }
