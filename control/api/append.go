package api

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// AppendJSON appends what json.Marshal returns for f, without its reflection and
// its allocations: a client may follow all flows of a busy node.
func (f *Flow) AppendJSON(b []byte) []byte {
	b = append(b, `{"time":"`...)
	b = f.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = optional(b, `,"node":`, f.Node)
	b = appendString(append(b, `,"event":`...), f.Event)
	b = appendString(append(b, `,"verdict":`...), f.Verdict)
	if f.Audit {
		b = append(b, `,"audit":true`...)
	}
	if f.Reply {
		b = append(b, `,"reply":true`...)
	}
	b = optional(b, `,"hook":`, f.Hook)
	b = f.Src.appendJSON(append(b, `,"src":`...))
	b = f.Dst.appendJSON(append(b, `,"dst":`...))
	b = appendString(append(b, `,"proto":`...), f.Proto)
	b = optional(b, `,"icmp":`, f.ICMP)
	b = optional(b, `,"tcpFlags":`, f.TCPFlags)
	b = appendString(append(b, `,"reason":`...), f.Reason)
	b = optional(b, `,"text":`, f.Text)
	b = appendRefs(append(b, `,"decidedBy":`...), f.DecidedBy)
	b = strconv.AppendUint(append(b, `,"generation":`...), f.Generation, 10)
	if f.Suppressed != 0 {
		b = strconv.AppendUint(append(b, `,"suppressed":`...), uint64(f.Suppressed), 10)
	}
	if f.Lost != 0 {
		b = strconv.AppendUint(append(b, `,"lost":`...), f.Lost, 10)
	}
	b = appendPair(append(b, `,"packets":`...), f.Packets)
	b = appendPair(append(b, `,"bytes":`...), f.Bytes)
	if f.DurationMs != 0 {
		b = strconv.AppendInt(append(b, `,"durationMs":`...), f.DurationMs, 10)
	}
	return append(b, '}')
}

func (e *End) appendJSON(b []byte) []byte {
	b = append(b, `{"addr":"`...)
	if e.Addr.IsValid() {
		b = e.Addr.AppendTo(b)
	}
	b = strconv.AppendUint(append(b, `","port":`...), uint64(e.Port), 10)
	b = optional(b, `,"namespace":`, e.Namespace)
	b = optional(b, `,"pod":`, e.Pod)
	if e.Endpoint != 0 {
		b = strconv.AppendUint(append(b, `,"endpoint":`...), uint64(e.Endpoint), 10)
	}
	b = optional(b, `,"workload":`, e.Workload)
	if len(e.Labels) > 0 {
		b = append(b, `,"labels":[`...)
		for i, l := range e.Labels {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, l)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendRefs(b []byte, refs []rule.PolicyRef) []byte {
	if refs == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range refs {
		r := &refs[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"kind":`...), r.Kind)
		b = appendString(append(b, `,"namespace":`...), r.Namespace)
		b = appendString(append(b, `,"name":`...), r.Name)
		b = strconv.AppendInt(append(b, `,"rule":`...), int64(r.Rule), 10)
		b = appendString(append(b, `,"direction":`...), r.Direction.String())
		b = optional(b, `,"tier":`, r.Tier)
		b = optional(b, `,"path":`, r.Path)
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendPair(b []byte, p [2]uint64) []byte {
	b = strconv.AppendUint(append(b, '['), p[0], 10)
	b = strconv.AppendUint(append(b, ','), p[1], 10)
	return append(b, ']')
}

func optional(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, key...), s)
}

// appendString appends a string of JSON. Names need no escapes; what does is
// left to the library.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...) // strings can't fail
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
