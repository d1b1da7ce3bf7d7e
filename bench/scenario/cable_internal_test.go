package scenario

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A veth pair of the machine's own namespace stands for a cable between two
// network cards; nothing but the cable is touched.
func TestCable(t *testing.T) {
	needRoot(t)
	tx, rx := fmt.Sprintf("sl-tx%d", os.Getpid()%100000), fmt.Sprintf("sl-rx%d", os.Getpid()%100000)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = tx
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: rx}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(tx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			t.Error(err)
		}
	})
	c := DefaultCable()
	c.TX, c.RX = tx, rx
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "down") {
		t.Errorf("a link that is down: %v", err)
	}
	for _, name := range []string{tx, rx} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	workloads, err := Select([]string{"rfc2544", "blast-xdp", "tcp-rr"})
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Workloads: workloads, Runs: 1, Duration: 100 * time.Millisecond, Cable: &c}
	if err := plan.Validate(); err != nil {
		t.Fatal(err)
	}
	steps, skipped := plan.steps()
	if !slices.ContainsFunc(skipped, func(s string) bool { return strings.Contains(s, "tcp-rr: needs pods") }) {
		t.Errorf("skipped: %v", skipped)
	}
	for _, s := range steps {
		if name := s.workload.Name; name == "rfc2544-xdp" || name == "blast-xdp" {
			mustMeasure(t, plan, s)
		}
	}
}

func TestCableReportsEveryFault(t *testing.T) {
	c := Cable{TX: "no-such-link", ToMAC: net.HardwareAddr{1}}
	err := c.Validate()
	for _, want := range []string{"both an interface", "no-such-link", "IPv4", "MAC"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %q", err, want)
		}
	}
}
