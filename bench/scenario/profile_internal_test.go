package scenario

import (
	"strings"
	"testing"
)

func TestSortProfile(t *testing.T) {
	p := sortProfile(`# To display the perf.data header info, please use --header/--header-only options.
# Overhead|Symbol
    50.00%|[k] default_idle
    20.00%  |[k] veth_xmit       
    15.00%|[.] github.com/sluice-net/sluice/dataplane/classify.(*Table).Classify
    10.00%|[k] __bpf_prog_run
     5.00%|[k] something_else

`)
	if got, want := p.String(), ", : 40% veth, queues, softirq, 30% Go: classifier, 20% BPF programs and maps, 10% rest"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(p.Symbols) != 4 || p.Symbols[0].Name != "veth_xmit" || p.Symbols[0].Share != 0.4 {
		t.Errorf("got %+v", p.Symbols)
	}
	for symbol, want := range map[string]string{
		"github.com/sluice-net/sluice/dataplane.(*worker).process": "Go: worker", "github.com/sluice-net/sluice/dataplane/xsk.(*Socket).Recv": "Go: rings",
		"runtime.futex": "Go: runtime", "xsk_generic_rcv": "AF_XDP in the kernel", "ip_forward": "IP stack", "nft_do_chain": "netfilter and conntrack",
		"__htab_map_lookup_elem": "BPF programs and maps", "packet_snd": "system calls", "kmem_cache_free": "memory", "memcpy_orig": "copies and checksums",
	} {
		if got := sortProfile("1.00%|[k] " + symbol); got.Stages[0].Name != want {
			t.Errorf("%s: in %q, want %q", symbol, got.Stages[0].Name, want)
		}
	}
	if p := sortProfile("nothing"); len(p.Stages) != 0 || strings.Contains(p.String(), "NaN") {
		t.Errorf("nothing: %v", p)
	}
}
