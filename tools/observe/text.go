package observe

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/tools/verdict"
)

// Word is the verdict in the words that filters have for it.
func (e *Event) Word() string {
	switch {
	case e.Event == Lost:
		return "LOST"
	case e.Event == "ended":
		return "ENDED"
	case e.Verdict == verdict.Deny:
		return "DROPPED"
	case e.Audit:
		return "AUDIT"
	}
	return "FORWARDED"
}

// missing says what a Lost stands for.
func (e *Event) missing() string {
	if e.Reason == ServerAway {
		return fmt.Sprintf("what happened while the server was away, for %v", time.Duration(e.DurationMs)*time.Millisecond)
	}
	return fmt.Sprintf("%d events (%s)", e.Lost, e.Reason)
}

// EndText names an end: a pod, else what is known of its address.
func EndText(e *api.End, port bool) string {
	name := e.Addr.String()
	switch {
	case e.Pod != "":
		name = e.Namespace + "/" + e.Pod
	case len(e.Labels) == 1 && strings.HasPrefix(e.Labels[0], "reserved:"):
		name = strings.TrimPrefix(e.Labels[0], "reserved:") + "/" + name
	}
	if !port || e.Port == 0 {
		return name
	}
	if e.Pod == "" && e.Addr.Is6() {
		return name[:len(name)-len(e.Addr.String())] + netip.AddrPortFrom(e.Addr, e.Port).String()
	}
	return name + ":" + strconv.Itoa(int(e.Port))
}

// ProtoText is the protocol with what of the packet tells it apart.
func (e *Event) ProtoText() string {
	switch {
	case e.Proto == "TCP" && e.TCPFlags != "":
		return "TCP " + e.TCPFlags
	case e.ICMP != "":
		return e.Proto + " " + e.ICMP
	}
	return e.Proto
}

// Cause says why, in a few words; names asks for who allowed it as well.
func (e *Event) Cause(names bool) string {
	var parts []string
	switch e.Event {
	case "ended":
		parts = append(parts, fmt.Sprintf("after %v, sent %s, received %s", (time.Duration(e.DurationMs)*time.Millisecond),
			volume(e.Packets[0], e.Bytes[0]), volume(e.Packets[1], e.Bytes[1])))
	case "changed":
		parts = append(parts, "rules changed")
	}
	d := verdict.Decision{DecidedBy: e.DecidedBy, Reason: e.Text}
	switch {
	case e.Verdict == verdict.Deny && e.Reason != "policy":
		parts = append(parts, e.Reason)
	case e.Verdict == verdict.Deny:
		parts = append(parts, "denied by "+refs(d))
	case e.Audit && e.Event != "ended":
		parts = append(parts, "not enforced: "+refs(d))
	case names && e.Event != "ended":
		parts = append(parts, "allowed by "+refs(d))
	}
	if e.Suppressed > 0 {
		parts = append(parts, fmt.Sprintf("%d more packets denied likewise", e.Suppressed))
	}
	return strings.Join(parts, "; ")
}

// refs names rules; policies that isolate together are one cause, and a long one
// where each is named in full.
func refs(d verdict.Decision) string {
	if len(d.DecidedBy) < 2 {
		return d.Text()
	}
	var names []string
	first := d.DecidedBy[0]
	for _, r := range d.DecidedBy {
		if r.Rule != rule.DefaultRule || r.Kind != first.Kind || r.Direction != first.Direction {
			return d.Text()
		}
		names = append(names, strings.TrimPrefix(r.Namespace+"/"+r.Name, "/"))
	}
	return first.Kind + " " + strings.Join(names, ", ") + " (no " + first.Direction.String() + " rule matches)"
}

func volume(packets, bytes uint64) string {
	return fmt.Sprintf("%d packets %s", packets, Bytes(bytes))
}

// Bytes is a number of bytes in a few digits.
func Bytes(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1000, 0
	for x >= 999.5 && unit < 4 {
		x, unit = x/1000, unit+1
	}
	return fmt.Sprintf("%.3g %cB", x, "kMGTP"[unit])
}
