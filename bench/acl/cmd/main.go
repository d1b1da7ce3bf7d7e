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
	flag.Parse()
	cfg.Scales = strings.Split(*scales, ",")
	list, err := acl.Run(cfg, func(what string) { fmt.Fprintln(os.Stderr, what) })
	if err == nil && *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(list)
	} else if err == nil {
		fmt.Printf("librte_acl of DPDK %s; one CPU, batches of %d, %d rounds in turns\n\n", acl.Version(), cfg.Batch, cfg.Rounds)
		err = acl.Print(os.Stdout, list)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "acl:", err)
		os.Exit(1)
	}
}
