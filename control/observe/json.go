package observe

import (
	"context"
	"fmt"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// Flows implements that of api.Agent.
func (o *Observer) Flows(ctx context.Context, last int, follow bool, opened func(), visit func(*api.Flow) error) error {
	oldest, next := o.ring.Bounds()
	from := next
	o.EachBack(func(number uint64, f *Flow) bool {
		if last == 0 {
			return false
		}
		if f.Lost == 0 {
			last--
		}
		from = number
		return true
	})
	r := o.ReaderAt(max(from, oldest))
	if follow {
		defer o.Want(event.WantAll)()
	}
	opened()
	for {
		if f, missed := r.Next(); f != nil && (follow || r.Number() <= next) {
			if missed > 0 {
				if err := visit(lost(f.TimeNs, missed, missedReason)); err != nil {
					return err
				}
			}
			var j api.Flow
			if f.Lost > 0 {
				j = *lost(f.TimeNs, f.Lost, lostReason)
			} else {
				j = JSON(f)
			}
			if err := visit(&j); err != nil {
				return err
			}
			continue
		}
		if !follow {
			return nil
		}
		if err := visit(nil); err != nil {
			return err
		}
		if err := r.Wait(ctx); err != nil {
			return err
		}
	}
}

// Where events were lost, in Hubble's words for it: between the workers and the
// history, for all readers; or in the history, for one that was too slow.
const (
	lostReason   = "perf_event_ring_buffer"
	missedReason = "hubble_ring_buffer"
)

// lost says that n events are missing before a time.
func lost(timeNs int64, n uint64, reason string) *api.Flow {
	return &api.Flow{Time: time.Unix(0, timeNs).UTC(), Event: "lost", Lost: n, Reason: reason, DecidedBy: []rule.PolicyRef{}}
}

var kinds = [...]string{event.NewFlow: "new", event.Denied: "denied", event.Changed: "changed", event.Ended: "ended", event.Passed: "passed"}

var hooks = [...]string{event.FromPod: "from-pod", event.ToPod: "to-pod", event.InHost: "service"}

// JSON returns an event as the agent's own API shows it.
func JSON(r *Flow) api.Flow {
	f := api.Flow{
		Time: time.Unix(0, r.TimeNs).UTC(), Event: kinds[r.Kind], Verdict: "deny", Audit: r.Audit,
		Reply: r.Reply, Hook: hooks[r.Hook], Proto: r.Key.Proto.String(), Reason: r.Reason.String(),
		Generation: r.Generation, Suppressed: r.Suppressed, DurationMs: r.DurationNs / 1e6,
		TCPFlags: FlagNames(r.TCPFlags, ","), DecidedBy: []rule.PolicyRef{},
		Packets: [2]uint64{r.Packets[r.Side], r.Packets[r.Side.Other()]},
		Bytes:   [2]uint64{r.Bytes[r.Side], r.Bytes[r.Side.Other()]},
	}
	if r.Allowed {
		f.Verdict = "allow"
	}
	src, dst, sport, dport := r.Key.Tuple(r.Side)
	f.Src, f.Dst = r.Src.json(src, sport), r.Dst.json(dst, dport)
	if r.Key.Proto == packet.ProtoICMP || r.Key.Proto == packet.ProtoICMPv6 {
		kind, code := r.ICMPType()
		f.ICMP = fmt.Sprintf("%d/%d", kind, code)
	}
	for i, c := range [2]*rule.Cause{r.Egress, r.Ingress} {
		if i == 0 && !r.Allowed && r.Denier() == IngressVerdict {
			continue // allowed it: the denial is the ingress side's alone
		}
		f.DecidedBy = append(f.DecidedBy, c.Refs...)
		if f.Text == "" {
			f.Text = c.Text
		}
	}
	return f
}

func (e *End) json(addr packet.Addr, port uint16) api.End {
	out := api.End{Addr: addr.Netip(), Port: port, Namespace: e.Namespace, Pod: e.Pod, Endpoint: e.Endpoint, Labels: e.Labels}
	if e.Workload != "" {
		out.Workload = e.WorkloadKind + "/" + e.Workload
	}
	return out
}

var tcpFlagNames = [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

// FlagNames lists the TCP flags that are set.
func FlagNames(flags uint8, separator string) string {
	s := ""
	for i, name := range tcpFlagNames {
		if flags&(1<<i) != 0 {
			if s != "" {
				s += separator
			}
			s += name
		}
	}
	return s
}
