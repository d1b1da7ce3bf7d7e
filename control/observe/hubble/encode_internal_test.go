package hubble

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-net/sluice/control/observe"
	"github.com/sluice-net/sluice/control/observe/observetest"
	"github.com/sluice-net/sluice/dataplane/endpoint"
	"github.com/sluice-net/sluice/dataplane/event"
	"github.com/sluice-net/sluice/dataplane/packet"
	"github.com/sluice-net/sluice/dataplane/rule"
	"github.com/sluice-net/sluice/dataplane/stat"
)

// anyRecord is a record of any kind, many that no worker writes among them.
func anyRecord(r *rand.Rand, causes int) event.Record {
	protos := []packet.Proto{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP, packet.ProtoICMPv6, protoVRRP, protoIGMP, 47}
	addr := func() packet.Addr {
		if r.IntN(2) == 0 {
			return packet.AddrV4(r.Uint32())
		}
		return packet.Addr{Hi: 0x20010db8 << 32, Lo: r.Uint64()}
	}
	number := func() uint64 { return r.Uint64() >> r.IntN(65) }
	yes := func() bool { return r.IntN(2) == 0 }
	rec := event.Record{
		TimeNs: r.Int64N(1 << 62), Kind: event.Kind(r.IntN(4)), Hook: event.Hook(r.IntN(3)), Allowed: r.IntN(3) > 0,
		Audit: yes(), AuditEgress: yes(), AuditIngress: yes(), Reply: yes(), Reason: stat.Reason(r.IntN(int(stat.NumReasons))),
		TCPFlags: uint8(number()), ICMP: uint16(number()), Src: endpoint.ID(r.IntN(7)), Dst: endpoint.ID(r.IntN(7)),
		Egress: rule.CauseID(r.IntN(causes)), Ingress: rule.CauseID(r.IntN(causes)),
		Generation: number(), Suppressed: uint32(number()), Packets: [2]uint64{number(), number()}, Bytes: [2]uint64{number(), number()},
		DurationNs: int64(number() >> 1),
	}
	if rec.Egress == rule.CauseID(causes-1) && r.IntN(20) > 0 { // which is long
		rec.Egress = rule.NoCause
	}
	if rec.Ingress == rule.CauseID(causes-1) && r.IntN(20) > 0 {
		rec.Ingress = rule.NoCause
	}
	rec.Key, rec.Side = packet.MakeKey(addr(), addr(), uint16(number()), uint16(number()), protos[r.IntN(len(protos))])
	return rec
}

// newSource returns a source with ends and causes of all kinds.
func newSource(t testing.TB) *observetest.Source {
	t.Helper()
	src, err := observetest.New(1 << 13)
	if err != nil {
		t.Fatal(err)
	}
	src.Pods[3].Workload, src.Pods[3].WorkloadKind = "db", "StatefulSet"
	src.Pods[4] = &observe.End{Identity: observe.IdentityHost, Labels: []string{"reserved:host"}, Node: "node-1"}
	src.Pods[5] = &observe.End{Identity: observe.IdentityRemoteNode, Labels: []string{"reserved:remote-node"}, Node: "other"}
	src.Pods[6] = &observe.End{Identity: 306, Namespace: "b", Pod: "gone", Labels: []string{"k8s:app=gone"}, Node: "node-1"} // of no endpoint any more
	src.Causes = append(src.Causes, rule.Cause{Text: "as configured", Refs: []rule.PolicyRef{
		{Kind: "GlobalNetworkPolicy", Name: "all", Rule: 300, Direction: rule.Egress, Tier: "security", Path: "spec.egressDeny"}}})
	long := rule.Cause{} // so that its list takes three bytes of length
	for range 150 {
		long.Refs = append(long.Refs, rule.PolicyRef{Kind: "NetworkPolicy", Namespace: "b", Name: "a-policy-of-a-long-name", Rule: rule.DefaultRule})
	}
	src.Causes = append(src.Causes, long)
	return src
}

// observed returns n events as an observer makes them of records.
func observed(t testing.TB, src *observetest.Source, n int, next func(i int) event.Record) (flows []observe.Flow) {
	t.Helper()
	o := observe.New(src, src, n, event.WantAll)
	batches := make(chan []observe.Flow, n)
	o.Tap(func(f []observe.Flow) { batches <- slices.Clone(f) })
	go o.Run(t.Context())
	for len(flows) < n {
		src.Put(next(len(flows)))
		flows = append(flows, <-batches...)
	}
	return flows
}

// anyFlows returns events of any records.
func anyFlows(t testing.TB, n int) []observe.Flow {
	src, r := newSource(t), rand.New(rand.NewPCG(1, 2))
	var rec event.Record
	return observed(t, src, n, func(int) event.Record {
		// Most are like the one before but in a field: what is kept of that must not be
		// taken for what has changed.
		if fresh := anyRecord(r, len(src.Causes)); r.IntN(8) == 0 {
			rec = fresh
		} else {
			i := r.IntN(reflect.TypeFor[event.Record]().NumField())
			reflect.ValueOf(&rec).Elem().Field(i).Set(reflect.ValueOf(fresh).Field(i))
		}
		return rec
	})
}

// What the encoder writes is what the protobuf library makes of the same flow.
func TestEncode(t *testing.T) {
	labels := []string{"a=b", "kubernetes.io/hostname=node-1"}
	o := origin{1, "node-1", labels}
	enc, conv := newEncoder(o), newConverter(o)
	seen := map[observe.View]int{}
	var buf []byte
	for _, f := range anyFlows(t, 5_000) {
		for i, v := range f.Views() {
			seen[v]++
			flow := conv.flow(&f, i)
			want := &observerpb.GetFlowsResponse{Time: flow.Time, NodeName: flow.NodeName, ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: flow}}
			enc.begin(&f)
			buf = enc.append(buf[:0], i)
			if prefix := appendPrefix(nil, len(buf)-prefixLen); !bytes.HasPrefix(buf, prefix) {
				t.Fatalf("%x before a message of %d bytes", buf[:prefixLen], len(buf)-prefixLen)
			}
			got := &observerpb.GetFlowsResponse{}
			if err := proto.Unmarshal(buf[prefixLen:], got); err != nil {
				t.Fatalf("%v: of %v", err, want)
			}
			if len(got.ProtoReflect().GetUnknown())+len(got.GetFlow().ProtoReflect().GetUnknown()) > 0 {
				t.Fatalf("fields that are not known in %v", got)
			}
			// The order of a Struct's fields is free.
			a, b := got.GetFlow().GetExtensions(), flow.Extensions
			got.GetFlow().Extensions, flow.Extensions = nil, nil
			if !proto.Equal(got, want) {
				t.Fatalf("view %d of %+v:\n%v\nwant\n%v", v, f.Record, got, want)
			}
			if !sameAny(a, b) {
				t.Fatalf("view %d of %+v: extensions %v, want %v", v, f.Record, a, b)
			}
		}
	}
	for _, v := range []observe.View{observe.EgressVerdict, observe.IngressVerdict, observe.Drop, observe.Trace} {
		if seen[v] == 0 {
			t.Errorf("no view %d among them", v)
		}
	}
}

func sameAny(a, b *anypb.Any) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	x, err := a.UnmarshalNew()
	if err != nil {
		return false
	}
	y, err := b.UnmarshalNew()
	return err == nil && proto.Equal(x, y)
}

// Lengths are written in as few bytes as they take, wherever room was left for
// others.
func TestLengths(t *testing.T) {
	for _, room := range []int{1, 2, 3} {
		for _, n := range []int{0, 1, 127, 128, 16383, 16384, 1<<21 - 1, 1 << 21} {
			b, at := begin([]byte("before"), 5, room)
			b = end(append(b, make([]byte, n)...), at, room)
			want := protowire.AppendBytes(protowire.AppendTag([]byte("before"), 5, protowire.BytesType), make([]byte, n))
			if !slices.Equal(b, want) {
				t.Errorf("%d bytes with room for a length of %d: %x…", n, room, b[:min(len(b), 16)])
			}
		}
	}
}

// What is kept is bounded, and what is kept no more is made again.
func TestEncoderForgets(t *testing.T) {
	enc := newEncoder(origin{})
	flows := anyFlows(t, 64)
	for i := range 3 * mostParts {
		f := flows[i%len(flows)]
		src := *f.Src
		f.Src, f.Generation = &src, uint64(i)
		if len(f.Views()) == 0 {
			continue
		}
		enc.begin(&f)
		enc.append(nil, 0)
	}
	if len(enc.ends) > mostParts || len(enc.policies) > mostParts || len(enc.templates) > mostTemplates {
		t.Errorf("%d ends, %d policies and %d templates are kept", len(enc.ends), len(enc.policies), len(enc.templates))
	}
}

func TestEncodeAllocs(t *testing.T) {
	enc := newEncoder(origin{node: "node-1"})
	flows := anyFlows(t, 500)
	flows = slices.DeleteFunc(flows, func(f observe.Flow) bool { return f.Kind == event.Ended || len(f.Views()) == 0 })
	buf := make([]byte, 0, 1<<16)
	all := func() {
		for i := range flows {
			enc.begin(&flows[i])
			enc.append(buf, 0)
		}
	}
	all()
	if n := testing.AllocsPerRun(10, all) / float64(len(flows)); n > 0.2 { // of an unusual protocol's number
		t.Errorf("%v allocations a flow", n)
	}
}

// BenchmarkEncode encodes new flows, all views of each, of some clients of two
// Services, with time, ports and most ends other than those of the one before.
func BenchmarkEncode(b *testing.B) {
	flows := observed(b, newSource(b), 4096, func(i int) event.Record {
		r := observetest.TCP(i, endpoint.ID(i%2), endpoint.ID(2+i%3), 80)
		r.Egress, r.Ingress = 1, 2
		return r
	})
	o := origin{node: "node-1", labels: []string{"kubernetes.io/hostname=node-1"}}
	enc, conv := newEncoder(o), newConverter(o)
	buf := make([]byte, 0, 1<<16)
	each := func(b *testing.B, encode func(f *observe.Flow, view int)) {
		b.ReportAllocs()
		views := 0
		for i := 0; b.Loop(); i++ {
			f := &flows[i%len(flows)]
			for v := range f.Views() {
				encode(f, v)
				views++
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(views), "ns/message")
	}
	b.Run("encoder", func(b *testing.B) {
		each(b, func(f *observe.Flow, view int) {
			if view == 0 {
				enc.begin(f)
			}
			enc.append(buf, view)
		})
	})
	b.Run("messages", func(b *testing.B) {
		each(b, func(f *observe.Flow, view int) {
			flow := conv.flow(f, view)
			resp := &observerpb.GetFlowsResponse{Time: flow.Time, NodeName: flow.NodeName, ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: flow}}
			if _, err := (proto.MarshalOptions{}).MarshalAppend(buf, resp); err != nil {
				b.Fatal(err)
			}
		})
	})
}
