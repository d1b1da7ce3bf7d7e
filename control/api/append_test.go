package api_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/dataplane/rule"
)

// fill sets every field that reflection can reach to something random, and to
// its zero value now and then.
func fill(r *rand.Rand, v reflect.Value) {
	if r.IntN(4) == 0 {
		return
	}
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(4e9), r.Int64N(1e9)/[]int64{1, 1e3, 1e6}[r.IntN(3)]).UTC()))
		return
	case netip.Addr:
		var a [16]byte
		for i := range a {
			a[i] = byte(r.Uint32())
		}
		v.Set(reflect.ValueOf([]netip.Addr{netip.AddrFrom4([4]byte(a[:4])), netip.AddrFrom16(a)}[r.IntN(2)]))
		return
	case rule.Direction:
		v.Set(reflect.ValueOf(rule.Direction(r.IntN(2))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"a", "kube-system/dns", `say "no" \ <b>&`, "naïve \u2028", "tab\tnul\x00", "bad \xff", "=:,"}[r.IntN(7)])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64() - r.Int64())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	default:
		panic(v.Type().String())
	}
}

// TestAppendJSON compares with the library, a field that is new included.
func TestAppendJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var f api.Flow
		fill(r, reflect.ValueOf(&f).Elem())
		want, err := json.Marshal(&f)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.AppendJSON(nil); string(got) != string(want) {
			t.Fatalf("\n%s, want\n%s", got, want)
		}
	}
}

func BenchmarkFlow(b *testing.B) {
	f := api.Flow{Time: time.Unix(1.8e9, 123456789).UTC(), Event: "new", Verdict: "allow", Hook: "from-pod", Proto: "TCP", TCPFlags: "SYN", Reason: "ok",
		Src:       api.End{Addr: netip.MustParseAddr("10.244.1.10"), Port: 40000, Namespace: "production", Pod: "frontend", Labels: []string{"k8s:app=frontend", "k8s:io.kubernetes.pod.namespace=production"}},
		Dst:       api.End{Addr: netip.MustParseAddr("10.244.1.20"), Port: 8080, Namespace: "production", Pod: "backend", Labels: []string{"k8s:app=backend", "k8s:io.kubernetes.pod.namespace=production"}},
		DecidedBy: []rule.PolicyRef{{Kind: "NetworkPolicy", Namespace: "production", Name: "backend"}}, Generation: 7}
	b.Run("append", func(b *testing.B) {
		var buf []byte
		b.ReportAllocs()
		for b.Loop() {
			buf = f.AppendJSON(buf[:0])
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&f); err != nil {
				b.Fatal(err)
			}
		}
	})
}
