package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// sysctl is one kernel setting below /proc/sys/net.
type sysctl struct{ key, value string }

// quiet makes a namespace deterministic: addresses are usable at once, no
// router is listened to, and no filter but the one under test drops packets.
var quiet = []sysctl{
	{"ipv4/conf/all/rp_filter", "0"},
	{"ipv4/conf/default/rp_filter", "0"},
	{"ipv4/conf/all/send_redirects", "0"},
	{"ipv4/conf/default/send_redirects", "0"},
	{"ipv6/conf/all/disable_ipv6", "0"},
	{"ipv6/conf/default/disable_ipv6", "0"},
	{"ipv6/conf/all/accept_dad", "0"},
	{"ipv6/conf/default/accept_dad", "0"},
	{"ipv6/conf/all/accept_ra", "0"},
	{"ipv6/conf/default/accept_ra", "0"},
	{"ipv6/conf/default/router_solicitations", "0"},
}

// forwarding makes a namespace a router.
var forwarding = []sysctl{
	{"ipv4/ip_forward", "1"},
	{"ipv6/conf/all/forwarding", "1"},
	{"ipv6/conf/default/forwarding", "1"},
}

// setSysctls writes settings of the namespace: /proc/sys/net shows the network
// namespace of the thread that opens a file in it.
func (ns *Namespace) setSysctls(settings ...sysctl) error {
	return ns.Do(func() error {
		var errs []error
		for _, s := range settings {
			path := filepath.Join("/proc/sys/net", s.key)
			if err := os.WriteFile(path, []byte(s.value), 0o644); err != nil {
				errs = append(errs, fmt.Errorf("set %s in %s: %w", s.key, ns.name, err))
			}
		}
		return errors.Join(errs...)
	})
}
