// Command cmd compares Sluice's classifier with DPDK's librte_acl and prints a
// table, or JSON with -json.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/sluice-net/sluice/bench/acl"
)

func main() {
	cfg := acl.Default()
	scales := flag.String("scales", strings.Join(cfg.Scales, ","), "sets of rules, by name")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "rounds of each contender, taking turns")
	flag.IntVar(&cfg.Packets, "packets", cfg.Packets, "packets of a trace")
	flag.IntVar(&cfg.Batch, "batch", cfg.Batch, "packets classified at once")
	flag.IntVar(&cfg.CPU, "cpu", cfg.CPU, "the CPU that both run on")
	flag.IntVar(&cfg.MemoryMB, "memory", cfg.MemoryMB, "memory for rte_acl, in MB")
	skipAlone := flag.Bool("compare-only", false, "leave out what Sluice costs by itself, with IPv6 and 500,000 addresses")
	flag.Parse()
	cfg.Scales = strings.Split(*scales, ",")
	progress := func(what string) { fmt.Fprintln(os.Stderr, what) }
	list, err := acl.Run(cfg, progress)
	var alone []acl.Alone
	if err == nil && !*skipAlone {
		alone, err = acl.RunAlone(cfg, progress)
	}
	if err == nil && *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(map[string]any{"compared": list, "alone": alone})
	} else if err == nil {
		fmt.Printf("librte_acl of DPDK %s; one CPU, batches of %d, %d rounds in turns\n\n", acl.Version(), cfg.Batch, cfg.Rounds)
		if err = acl.Print(os.Stdout, list); err == nil && alone != nil {
			acl.PrintAlone(os.Stdout, alone)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "acl:", err)
		os.Exit(1)
	}
}
