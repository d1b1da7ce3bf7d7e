// The oracle of package selector: libcalico-go's own parser. It is a module of
// its own so that the product does not depend on Calico.
module github.com/sluice-net/sluice/tools/calico-oracle

go 1.26.0

require (
	github.com/projectcalico/calico v1.11.0-cni-plugin.0.20250813170300-a0db560f0520
	github.com/sluice-net/sluice v0.0.0
)

require (
	github.com/sirupsen/logrus v1.9.3 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/sluice-net/sluice => ../..
