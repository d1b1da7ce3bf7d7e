package forward

import "github.com/mdlayher/netlink"

// TellBy has a Guard tell of drops by an expression that the kernel may not know.
func (g *Guard) TellBy(name string) {
	g.tell = func(e *netlink.AttributeEncoder) { expr(e, name, func(*netlink.AttributeEncoder) {}) }
}
