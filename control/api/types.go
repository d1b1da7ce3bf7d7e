// Package api is the agent's local interface, version 1: HTTP with JSON over a
// Unix socket of mode 0600. It holds the types, the client and the server's
// routes; who answers is behind the Agent interface.
//
//	GET  /v1/status     Status
//	GET  /v1/endpoints  []Endpoint
//	GET  /v1/flows      JSON lines of Flow: ?follow=true streams, ?last=N history first
package api

import (
	"net/netip"
	"time"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// Status is the state of an agent.
type Status struct {
	Node       string            `json:"node"`
	Ready      bool              `json:"ready"` // first policies published, all known pods enforced
	PID        int               `json:"pid"`
	Started    time.Time         `json:"started"`
	Offload    bool              `json:"offload"`
	FailOpen   bool              `json:"failOpen"`
	Generation uint64            `json:"generation"` // of the published rule set
	Digest     string            `json:"digest"`     // of the manifests that it was compiled from
	Endpoints  int               `json:"endpoints"`
	Pending    []string          `json:"pending,omitempty"` // pods whose link is not found yet
	Workers    []Worker          `json:"workers"`
	Modes      map[string]string `json:"modes"`    // what is really in use: attach, xdp, copy, umem …
	Flows      int               `json:"flows"`    // live entries of the flow tables
	Drops      map[string]uint64 `json:"drops"`    // by reason, all workers and programs
	Programs   map[string]uint64 `json:"programs"` // what the BPF programs did with packets that they let go on
	Rejected   []Rejection       `json:"rejected,omitempty"`
	Notes      []string          `json:"notes,omitempty"` // skipped kinds and the like
}

// Worker is the state of one queue.
type Worker struct {
	ID      int    `json:"id"`
	Port    string `json:"port"` // link that its socket is bound to
	Mode    string `json:"mode"` // "copy" or "zero-copy"
	Alive   bool   `json:"alive"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Rejection is an object, or a field of one, that is not in force as written.
type Rejection struct {
	Object string `json:"object"` // Kind namespace/name
	Source string `json:"source"` // file and document
	Field  string `json:"field"`
	Reason string `json:"reason"`
	Effect string `json:"effect"` // what holds instead
}

// Endpoint is a pod of this node.
type Endpoint struct {
	ID         uint32       `json:"id"`
	Namespace  string       `json:"namespace"`
	Pod        string       `json:"pod"`
	Addresses  []netip.Addr `json:"addresses"`
	Link       string       `json:"link"`
	MAC        string       `json:"mac"`
	Generation uint32       `json:"generation"`
	State      string       `json:"state"` // "enforced", "isolated" (no rules yet), "no link"
}

// Flow is one verdict event.
type Flow struct {
	Time       time.Time        `json:"time"`
	Event      string           `json:"event"`   // new, denied, changed, ended
	Verdict    string           `json:"verdict"` // allow, deny
	Audit      bool             `json:"audit,omitempty"`
	Reply      bool             `json:"reply,omitempty"`
	Hook       string           `json:"hook"` // from-pod, to-pod
	Src        End              `json:"src"`
	Dst        End              `json:"dst"`
	Proto      string           `json:"proto"` // TCP, UDP, SCTP, ICMP, ICMPv6 or a number
	TCPFlags   string           `json:"tcpFlags,omitempty"`
	Reason     string           `json:"reason"` // stat.Reason, or "ok"
	Text       string           `json:"text,omitempty"`
	DecidedBy  []rule.PolicyRef `json:"decidedBy"`
	Generation uint64           `json:"generation"`
	Suppressed uint32           `json:"suppressed,omitempty"`
	Packets    [2]uint64        `json:"packets"` // in ended events: sent by Src, sent by Dst
	Bytes      [2]uint64        `json:"bytes"`
	DurationMs int64            `json:"durationMs,omitempty"`
}

// End is one end of a flow.
type End struct {
	Addr      netip.Addr `json:"addr"`
	Port      uint16     `json:"port"`
	Namespace string     `json:"namespace,omitempty"`
	Pod       string     `json:"pod,omitempty"`
}
