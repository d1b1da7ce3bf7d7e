package acl_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-net/sluice/bench/acl"
	"github.com/sluice-net/sluice/dataplane/classify"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/rule/ruletest"
)

// small is a cluster that a linear search gets through.
var small = ruletest.Cluster{Seed: 9, Namespaces: 3, Apps: 3, Pods: 60, Policies: 40, LocalPods: 12, CIDRs: 30}

// match is rte_acl in its plainest form: the rule of highest priority wins.
func match(rules []acl.Rule, key [12]byte) uint32 {
	remote, row, port := binary.BigEndian.Uint32(key[4:]), uint32(binary.BigEndian.Uint16(key[8:])), uint32(binary.BigEndian.Uint16(key[10:]))
	priority, data := uint32(0), uint32(0)
	for _, r := range rules {
		if r.Row == row && uint32(key[0])&r.ProtoMask == r.Proto && r.From <= port && port <= r.To &&
			uint64(remote^r.Remote)>>(32-r.Bits) == 0 && r.Priority > priority {
			priority, data = r.Priority, r.Data
		}
	}
	return data
}

// TestFlattenKeepsTheMeaning compares the expansion with the oracle.
func TestFlattenKeepsTheMeaning(t *testing.T) {
	set := small.Set()
	table, err := classify.Build(set)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := acl.Flatten(set, table)
	if err != nil {
		t.Fatal(err)
	}
	allowed := 0
	for _, p := range (ruletest.Traffic{Seed: 3, Count: 4000}).Trace(set) {
		data := match(rules, acl.Key(classify.Query{Remote: packet.AddrFrom(p.Remote),
			Row: table.Row(p.Endpoint, p.Direction), Port: p.Port, Proto: packet.Proto(p.Proto)}))
		action, _, _, cause := ruletest.Evaluate(set, p.Endpoint, p.Direction, p.Remote, p.Proto, p.Port)
		want := uint32(cause)<<3 + 1
		if action == rule.Allow {
			want, allowed = want+1, allowed+1
		}
		if data != want {
			t.Fatalf("%+v: got %#x, want %#x", p, data, want)
		}
	}
	if allowed < 400 || allowed > 3600 {
		t.Errorf("%d of 4000 probes were allowed: the trace says little", allowed)
	}
}

// TestFlattenRefuses checks that what rte_acl can't say is named.
func TestFlattenRefuses(t *testing.T) {
	any := rule.Rule{AnyPeer: true, AnyPort: true, Action: rule.Pass}
	for want, set := range map[string]*rule.Set{
		"passes":  {Endpoints: []rule.Endpoint{{ID: 1}}, Programs: []rule.Program{{Tiers: []rule.Tier{{Rules: []rule.Rule{any}}}}}},
		"unbound": {Peers: 1, Blocks: []rule.Block{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Unbound: true}}},
	} {
		table, err := classify.Build(set)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := acl.Flatten(set, table); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

// TestSameVerdicts runs the real library, where it is installed, against ours.
func TestSameVerdicts(t *testing.T) {
	cfg := acl.Default()
	cfg.Scales, cfg.Rounds, cfg.Packets, cfg.CPU, cfg.MemoryMB = []string{"1k"}, 1, 20000, 0, 512
	list, err := acl.Run(cfg, func(what string) { t.Log(what) })
	if errors.Is(err, acl.ErrNoLibrary) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || len(list[0].RTE.Timings) == 0 {
		t.Errorf("got %+v", list)
	}
}
