// Package api is the agent's local interface, version 1: HTTP with JSON over a
// Unix socket of mode 0600. It holds the types, the client and the server's
// routes; who answers is behind the Agent interface.
//
//	GET  /v1/status     Status; ?maps=true counts what is in the kernel's maps as well
//	GET  /v1/endpoints  []Endpoint
//	GET  /v1/policies   []Policy in the order of judgement; see Which for ?kind, ?namespace, ?name
//	GET  /v1/wait       Waited, once what WaitFor describes is in force, or 504 with what is missing
//	GET  /v1/names      []Name
//	GET  /v1/flows      JSON lines of Flow: ?follow=true streams, ?last=N history first
//	GET  /v1/explain    Explanation of ?src=ADDR&dst=ADDR&proto=TCP&port=N
//	POST /v1/packets    JSON lines of Packet, for a PacketQuery
//
// and what CNI plugins use, below /v1/cni/. An error has a status other than 200
// and a line of text. Fields may be added within version 1, and lists may grow:
// clients ignore what they don't know. A field never changes its meaning.
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
	Source     string            `json:"source"` // where objects come from
	Synced     bool              `json:"synced"` // all of it was known once
	Watches    []Watch           `json:"watches,omitempty"`
	StaleMs    int64             `json:"staleMs"`    // since when, at worst, the source was not heard of while it should be; 0: in step
	Objects    Objects           `json:"objects"`    // known
	Generation uint64            `json:"generation"` // of the published rule set
	Published  time.Time         `json:"published"`  // when it was; zero: not yet
	Digest     string            `json:"digest"`     // of the manifests that it was compiled from
	Endpoints  int               `json:"endpoints"`
	Pending    []string          `json:"pending,omitempty"` // pods whose link is not found yet
	Workers    []Worker          `json:"workers"`
	Uplinks    []Uplink          `json:"uplinks,omitempty"`
	Hubble     string            `json:"hubble,omitempty"` // socket of Hubble's API, if it is served
	Modes      map[string]string `json:"modes"`            // what is really in use: attach, xdp, copy, umem …
	Flows      int               `json:"flows"`            // live entries of the flow tables
	FlowsMax   int               `json:"flowsMax"`         // that there is room for
	Events     Events            `json:"events"`
	Maps       []Map             `json:"maps,omitempty"`   // if they were asked for
	Loaded     []Program         `json:"loaded,omitempty"` // BPF programs; if maps were asked for
	HeapBytes  uint64            `json:"heapBytes"`        // that the agent's objects take
	Goroutines int               `json:"goroutines"`
	Services   Services          `json:"services"`
	Drops      map[string]uint64 `json:"drops"`    // by reason, all workers and programs, and the host's tables
	Programs   map[string]uint64 `json:"programs"` // what the BPF programs did with packets that they let go on
	Rejected   []Rejection       `json:"rejected,omitempty"`
	Notes      []string          `json:"notes,omitempty"` // skipped kinds and the like
}

// Services counts the calls, one for each address of a pod and of a Service, some
// of whose backends the pod may reach and others, on other nodes, not.
type Services struct {
	Guarded int    `json:"guarded"`          // let through, and judged where the host translates them
	Closed  int    `json:"closed"`           // not let through
	Reason  string `json:"reason,omitempty"` // why not
	Silent  string `json:"silent,omitempty"` // why what is dropped there has no events
}

// Worker is the state of one queue.
type Worker struct {
	ID      int    `json:"id"`
	Port    string `json:"port"` // link that its socket is bound to
	Mode    string `json:"mode"` // "copy" or "zero-copy"
	Alive   bool   `json:"alive"`
	CPU     *int   `json:"cpu,omitempty"` // that it is tied to
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`

	BeatAgeMs   int64  `json:"beatAgeMs"` // since it last showed that it lives
	Flows       int    `json:"flows"`
	FlowsMax    int    `json:"flowsMax"`
	HugePages   bool   `json:"hugePages"`
	PodLinks    int    `json:"podLinks"`    // pods that are heard on their own links, without offload
	RingDropped uint64 `json:"ringDropped"` // frames that found no place in the socket's queue
	FillEmpty   uint64 `json:"fillEmpty"`   // times that the kernel found no frame to fill
	LostEvents  uint64 `json:"lostEvents"`
}

// Watch is the state of one resource of a cluster that the agent follows.
type Watch struct {
	Resource string    `json:"resource"`
	Synced   bool      `json:"synced"`  // known in full once
	Healthy  bool      `json:"healthy"` // followed now
	Current  time.Time `json:"current"` // when the agent was last known to be in step with it
	Heard    time.Time `json:"heard"`   // when the server last said something of it
	Version  string    `json:"version"`
	Objects  int       `json:"objects"`
	Error    string    `json:"error,omitempty"`
}

// Objects counts what is known of the cluster.
type Objects struct {
	Namespaces int `json:"namespaces"`
	Pods       int `json:"pods"`
	Nodes      int `json:"nodes"`
	Policies   int `json:"policies"`
	Identities int `json:"identities"` // sets of labels that pods and nodes have
}

// Events is the state of verdict events.
type Events struct {
	Written uint64 `json:"written"`
	Lost    uint64 `json:"lost"`   // for want of room
	Missed  uint64 `json:"missed"` // sightings of flows that readers were too slow for, all together
	Held    uint64 `json:"held"`   // by the history
	HeldMax uint64 `json:"heldMax"`
}

// Map is a map of the BPF programs that can run full.
type Map struct {
	Name    string  `json:"name"`
	Type    string  `json:"type"`
	Entries int     `json:"entries"`
	Max     int     `json:"max"`
	Used    float64 `json:"used"`   // Entries of Max, 0 to 1
	Evicts  bool    `json:"evicts"` // full, it forgets what was used least lately instead of refusing
}

// Program is a loaded BPF program.
type Program struct {
	Name     string `json:"name"`
	ID       uint32 `json:"id"`
	Type     string `json:"type"`
	Tag      string `json:"tag"`      // of its instructions
	Point    string `json:"point"`    // where it is attached
	Attached int    `json:"attached"` // how often, by links; clsact filters are none
}

// Uplink is a NIC whose traffic for pods is judged in its driver already.
type Uplink struct {
	Name   string        `json:"name"`
	State  string        `json:"state"`            // on, off, stalled
	Reason string        `json:"reason,omitempty"` // why it is not on
	Mode   string        `json:"mode"`             // zerocopy, copy, mixed or none
	Note   string        `json:"note,omitempty"`   // why it is not zerocopy
	Queues []UplinkQueue `json:"queues"`
}

// UplinkQueue is one queue of an uplink.
type UplinkQueue struct {
	Queue   int    `json:"queue"`
	Worker  int    `json:"worker"`
	Mode    string `json:"mode"`
	Packets uint64 `json:"packets"` // that its worker judged
	Lost    uint64 `json:"lost"`    // that found no room
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
	// What the policies that are known say; in force if State is "enforced" and
	// Status tells of nothing that is not applied.
	Ingress Selected `json:"ingress"`
	Egress  Selected `json:"egress"`
}

// Selected is what selects an endpoint in one direction.
type Selected struct {
	Isolated bool        `json:"isolated"` // what no policy allows is denied
	Policies []PolicyKey `json:"policies"` // that have a say, in the order of judgement
}

// Flow is one verdict event.
type Flow struct {
	Time       time.Time        `json:"time"`
	Node       string           `json:"node,omitempty"`
	Event      string           `json:"event"`   // new, denied, changed, ended; or lost
	Verdict    string           `json:"verdict"` // allow, deny
	Audit      bool             `json:"audit,omitempty"`
	Reply      bool             `json:"reply,omitempty"`
	Hook       string           `json:"hook,omitempty"` // from-pod, to-pod, service: by the host, where it had translated the call of one
	Src        End              `json:"src"`
	Dst        End              `json:"dst"`
	Proto      string           `json:"proto"`          // TCP, UDP, SCTP, ICMP, ICMPv6 or a number
	ICMP       string           `json:"icmp,omitempty"` // "type/code" of what was judged
	TCPFlags   string           `json:"tcpFlags,omitempty"`
	Reason     string           `json:"reason"` // stat.Reason, or "ok"
	Text       string           `json:"text,omitempty"`
	DecidedBy  []rule.PolicyRef `json:"decidedBy"`
	Generation uint64           `json:"generation"`
	Suppressed uint32           `json:"suppressed,omitempty"`
	Lost       uint64           `json:"lost,omitempty"` // in "lost" events, which have little else: how many are missing here
	Packets    [2]uint64        `json:"packets"`        // in ended events: sent by Src, sent by Dst
	Bytes      [2]uint64        `json:"bytes"`
	DurationMs int64            `json:"durationMs,omitempty"`
}

// End is one end of a flow.
type End struct {
	Addr      netip.Addr `json:"addr"`
	Port      uint16     `json:"port"`
	Namespace string     `json:"namespace,omitempty"`
	Pod       string     `json:"pod,omitempty"`
	// Endpoint is the pod's number if it is one of the node that judged.
	Endpoint uint32 `json:"endpoint,omitempty"`
	// Workload is what the pod belongs to, as "Deployment/web".
	Workload string `json:"workload,omitempty"`
	// Labels are "k8s:KEY=VALUE", those of the pod's namespace among them, or
	// "reserved:world" and the like of what is no pod.
	Labels []string `json:"labels,omitempty"`
}
