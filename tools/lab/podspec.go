package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluice-net/sluice/control/source/manifest"
)

// Port is a port that a pod serves.
type Port struct {
	Proto  string `json:"proto"` // TCP, UDP, SCTP
	Number uint16 `json:"port"`
}

// String returns port/protocol, as kubectl does.
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Proto) }

// podSpec is what the lab reads of a Pod.
type podSpec struct {
	key         string // namespace/name
	addrs       []netip.Addr
	ports       []Port
	hostNetwork bool
	ready       bool
	nodeName    string
	hostAddrs   []netip.Addr // of its node
}

// nodeSpec is what the lab reads of a Node.
type nodeSpec struct {
	name  string
	addrs []netip.Addr
}

func readPod(p *corev1.Pod) (podSpec, error) {
	ns := p.Namespace
	if ns == "" {
		ns = corev1.NamespaceDefault
	}
	spec := podSpec{key: ns + "/" + p.Name, hostNetwork: p.Spec.HostNetwork, ready: isReady(p), nodeName: p.Spec.NodeName}
	if p.Name == "" {
		return spec, errors.New("pod without a name")
	}
	given := []string{p.Status.PodIP}
	for _, ip := range p.Status.PodIPs {
		given = append(given, ip.IP)
	}
	given = append(given, strings.Split(p.Annotations[manifest.AddressAnnotation], ",")...)
	onHost := []string{p.Status.HostIP}
	for _, ip := range p.Status.HostIPs {
		onHost = append(onHost, ip.IP)
	}
	var err, hostErr error
	spec.addrs, err = parseAddrs(given)
	spec.hostAddrs, hostErr = parseAddrs(onHost)
	if err := errors.Join(err, hostErr); err != nil {
		return spec, fmt.Errorf("pod %s: %w", spec.key, err)
	}
	containers := slices.Clone(p.Spec.Containers)
	for _, c := range p.Spec.InitContainers { // sidecars
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, cp := range c.Ports {
			port := Port{Proto: string(cp.Protocol), Number: uint16(cp.ContainerPort)}
			if port.Proto == "" {
				port.Proto = string(corev1.ProtocolTCP)
			}
			if cp.ContainerPort < 1 || cp.ContainerPort > 65535 || !knownProto(port.Proto) {
				return spec, fmt.Errorf("pod %s: port %d/%s", spec.key, cp.ContainerPort, port.Proto)
			}
			if !slices.Contains(spec.ports, port) {
				spec.ports = append(spec.ports, port)
			}
		}
	}
	return spec, nil
}

func readNode(n *corev1.Node) (nodeSpec, error) {
	var given []string
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			given = append(given, a.Address)
		}
	}
	given = append(given, strings.Split(n.Annotations[manifest.AddressAnnotation], ",")...)
	addrs, err := parseAddrs(given)
	if err != nil {
		return nodeSpec{}, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return nodeSpec{n.Name, addrs}, nil
}

// parseAddrs parses addresses, without doubles; empty texts don't count.
func parseAddrs(texts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range texts {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		if a = a.Unmap(); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

func knownProto(p string) bool { return p == "TCP" || p == "UDP" || p == "SCTP" }

// isReady takes a pod for ready unless its status says otherwise.
func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return true
}
