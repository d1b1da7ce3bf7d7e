package dataplane

import "github.com/sluice-net/sluice/dataplane/xsk"

// The largest packets, with their IP header, that a steering port carries. A
// port must carry what any pod may send.
const (
	// where AF_XDP takes packets in several frames (Linux 6.6)
	portMTUMulti = 16000
	// where it does not, and frames have a page: what veth carries with a
	// program that takes one buffer (veth_xdp_set in drivers/net/veth.c)
	portMTUPage = 3400
	// the same with smaller frames, of which the kernel keeps 256 bytes
	portMTUHalf = 1750
)

// portMTU is the MTU of the steering ports on this kernel.
func (c *Config) portMTU() int {
	switch {
	case xsk.KnowsMultiBuffer():
		return portMTUMulti
	case c.FrameSize >= 4096:
		return portMTUPage
	}
	return portMTUHalf
}
