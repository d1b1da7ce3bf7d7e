package doctor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-net/sluice/control/link"
)

// zeroCopy are drivers that give AF_XDP sockets zero-copy, and since which
// kernel: for kernels that don't say so themselves.
var zeroCopy = map[string]release{
	"i40e": {4, 20}, "ixgbe": {4, 20}, "mlx5_core": {5, 3}, "ice": {5, 5}, "igc": {5, 14}, "stmmac": {5, 13},
	"tsnep": {6, 4}, "idpf": {6, 18}, "igb": {6, 14}, "virtio_net": {6, 14}, "nfp": {5, 18}, "gve": {6, 4},
}

// nativeXDP are drivers that have XDP of their own but no zero-copy.
var nativeXDP = []string{
	"veth", "tun", "bnxt_en", "ena", "mlx4_en", "qede", "thunder-nic", "dpaa2-eth", "fsl_dpaa2_eth", "mvneta", "mvpp2",
	"sfc", "netsec", "hv_netvsc", "vmxnet3", "xen-netfront", "fec", "ti-cpsw", "mana", "enetc", "bonding",
}

// card is a network interface with a device behind it, or a bond.
type card struct {
	name, driver string
	rx, tx, mtu  int
	up           bool
	slaves       []string
	master       string
}

func (r *Report) cards(o *Options) {
	cards := o.listCards()
	if len(cards) == 0 {
		r.add("nic", "none", Info, "no network card with a driver is seen from here", "run the doctor in the host's network namespace")
		return
	}
	rel, _ := parseRelease(o.read("/proc/sys/kernel/osrelease"))
	for _, c := range cards {
		r.card(o, &c, rel)
	}
}

// listCards reads /sys/class/net.
func (o *Options) listCards() []card {
	entries, err := os.ReadDir(o.path("/sys/class/net"))
	if err != nil {
		return nil
	}
	var out []card
	for _, e := range entries {
		if _, err := net.InterfaceByName(e.Name()); o.Root == "" && err != nil {
			continue // sysfs is another network namespace's
		}
		dir := "/sys/class/net/" + e.Name()
		c := card{name: e.Name(), up: o.read(dir+"/operstate") == "up"}
		if slaves := o.read(dir + "/bonding/slaves"); slaves != "" {
			c.driver, c.slaves = "bonding", strings.Fields(slaves)
		} else if target, err := os.Readlink(o.path(dir + "/device/driver")); err == nil {
			c.driver = filepath.Base(target)
		} else {
			continue
		}
		c.mtu, _ = strconv.Atoi(o.read(dir + "/mtu"))
		queues, _ := os.ReadDir(o.path(dir + "/queues"))
		for _, q := range queues {
			if strings.HasPrefix(q.Name(), "rx-") {
				c.rx++
			} else {
				c.tx++
			}
		}
		if target, err := os.Readlink(o.path(dir + "/master")); err == nil {
			c.master = filepath.Base(target)
		}
		out = append(out, c)
	}
	return out
}

func (r *Report) card(o *Options, c *card, rel release) {
	value := fmt.Sprintf("%s, MTU %d, %s, %s", c.driver, c.mtu, count(c.rx, "rx queue"), count(c.tx, "tx queue"))
	if !c.up {
		value += ", down"
	}
	if c.master != "" {
		value += ", part of " + c.master
	}
	if c.driver == "bonding" {
		r.add("nic", c.name, Info, fmt.Sprintf("%s of %s", value, strings.Join(c.slaves, ", ")),
			"a bond has no queues of its own: as uplinks name its members")
		return
	}
	const generic = "pods' traffic is not concerned; steering on this card would be slow"
	features, known := uint64(0), errors.New("not this machine")
	if o.Root == "" {
		features, known = xdpFeatures(c.name)
	}
	since, zc := zeroCopy[c.driver]
	switch {
	case c.driver == "virtio_net" && (known == nil && features&xdpZeroCopy != 0 || known != nil && !rel.less(since)) && !o.virtioDMA(c.name):
		r.add("nic", c.name, Info, value+"; XDP native, copy", "virtio_net has zero-copy only where the hypervisor gives the card iommu_platform=on")
	case known == nil && features&xdpZeroCopy != 0:
		r.add("nic", c.name, OK, value+"; "+xdpModes(features), o.zeroCopyMTU(c))
	case known == nil && features&xdpBasic != 0:
		r.add("nic", c.name, Info, value+"; "+xdpModes(features), "")
	case known == nil:
		r.add("nic", c.name, Info, value+"; "+xdpModes(features), generic)
	case zc && rel.less(since):
		r.add("nic", c.name, Warn, value+"; XDP native, copy", fmt.Sprintf("this driver has zero-copy from Linux %d.%d on", since.major, since.minor))
	case zc:
		r.add("nic", c.name, OK, value+"; XDP native, zero-copy", o.zeroCopyMTU(c))
	case slices.Contains(nativeXDP, c.driver):
		r.add("nic", c.name, Info, value+"; XDP native, copy", "")
	default:
		r.add("nic", c.name, Info, value+"; XDP generic at best", generic)
	}
	if o.Root == "" {
		// What the agent would say of it as well.
		if _, err := (link.Ports{}).NIC(c.name); err != nil {
			r.add("nic", c.name+" as uplink", Info, "would be left alone", err.Error())
		}
	}
	if c.mtu > 3498 && !rel.less(release{5, 18}) {
		if known != nil || features&xdpRxSG == 0 {
			r.add("nic", c.name+" MTU", Info, strconv.Itoa(c.mtu), "frames that span several buffers need a driver with multi-buffer XDP")
		}
	}
	r.interrupts(o, c)
}

// virtioDMA reports whether a virtio card's ring addresses are DMA addresses,
// which AF_XDP zero-copy needs: bit 33 of its features, VIRTIO_F_ACCESS_PLATFORM
// (include/uapi/linux/virtio_config.h).
func (o *Options) virtioDMA(name string) bool {
	bits := o.read("/sys/class/net/" + name + "/device/features")
	return len(bits) > 33 && bits[33] == '1'
}

// zeroCopyMTU advises on cards whose frames don't fit those of the packet memory:
// frameSize without the 256 bytes that the kernel keeps, and the Ethernet header.
func (o *Options) zeroCopyMTU(c *card) string {
	switch room := c.mtu + 14; {
	case room > 4096-256:
		return "as an uplink: its MTU leaves no room for zero-copy, whose frames take 3840 bytes at most"
	case room > 2048-256:
		return "as an uplink: zero-copy with this MTU needs frameSize: 4096"
	}
	return ""
}

// interrupts looks whether a card's interrupts all go to one CPU.
func (r *Report) interrupts(o *Options, c *card) {
	irqs, err := os.ReadDir(o.path("/sys/class/net/" + c.name + "/device/msi_irqs"))
	if err != nil || len(irqs) < 2 {
		return
	}
	cpus := map[string]int{}
	for _, i := range irqs {
		if at := o.read("/proc/irq/" + i.Name() + "/effective_affinity_list"); at != "" {
			cpus[at]++
		}
	}
	switch {
	case len(cpus) == 0:
	case len(cpus) == 1 && c.rx > 1:
		for cpu := range cpus {
			r.add("nic", c.name+" interrupts", Warn, fmt.Sprintf("all %d on CPU %s", len(irqs), cpu), "spread them, by irqbalance or /proc/irq/*/smp_affinity_list")
		}
	default:
		r.add("nic", c.name+" interrupts", OK, fmt.Sprintf("%d on %s", len(irqs), count(len(cpus), "CPU")), "")
	}
}
