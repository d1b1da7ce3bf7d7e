package observe_test

import (
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-net/sluice/control/observe/filter"
	"github.com/sluice-net/sluice/tools/observe"
)

// parse reads flags as a command line has them: name=value, or a name alone.
func parse(t *testing.T, line string) (allow, deny []*flowpb.FlowFilter, err error) {
	t.Helper()
	var f observe.Filters
	for arg := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(arg, "=")
		for _, known := range observe.Flags() {
			if known.Name == name && value == "" {
				value = known.NoValue
			}
		}
		if err := f.Set(name, value); err != nil {
			return nil, nil, err
		}
	}
	return f.Requests()
}

func text(t *testing.T, list []*flowpb.FlowFilter) string {
	t.Helper()
	var out []string
	for _, f := range list {
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.ReplaceAll(string(b), " ", ""))
	}
	return strings.Join(out, " | ")
}

// What is sent is what hubble observe 1.20 sends for the same flags, as its
// --print-raw-filters shows it.
func TestFilters(t *testing.T) {
	for line, want := range map[string][2]string{
		"":                                   {"", ""},
		"verdict=DROPPED verdict=audit":      {`{"verdict":["DROPPED","AUDIT"]}`, ""},
		"verdict=deny":                       {`{"verdict":["DROPPED"]}`, ""},
		"pod=shop/web":                       {`{"source_pod":["shop/web"]} | {"destination_pod":["shop/web"]}`, ""},
		"from-pod=shop/web to-pod=api":       {`{"source_pod":["shop/web"],"destination_pod":["api"]}`, ""},
		"namespace=shop port=80":             {`{"source_pod":["shop/"],"source_port":["80"]} | {"destination_pod":["shop/"],"destination_port":["80"]}`, ""},
		"from-namespace=a to-namespace=b":    {`{"source_pod":["a/"],"destination_pod":["b/"]}`, ""},
		"from-namespace=a from-pod=x":        {`{"source_pod":["a/x"]}`, ""},
		"from-namespace=a from-namespace=b":  {`{"source_pod":["a/","b/"]}`, ""},
		"all-namespaces":                     {`{"source_pod":["/"]} | {"destination_pod":["/"]}`, ""},
		"ip=10.0.0.0/8":                      {`{"source_ip":["10.0.0.0/8"]} | {"destination_ip":["10.0.0.0/8"]}`, ""},
		"protocol=tcp not port=53":           {`{"protocol":["tcp"]}`, `{"source_port":["53"]} | {"destination_port":["53"]}`},
		"not verdict=DROPPED not to-port=80": {"", `{"destination_port":["80"],"verdict":["DROPPED"]}`},
		"from-label=app=web":                 {`{"source_label":["app=web"]}`, ""},
		"type=drop type=trace:to-stack":      {`{"event_type":[{"type":1},{"type":4,"match_sub_type":true,"sub_type":3}]}`, ""},
		"type=5":                             {`{"event_type":[{"type":5}]}`, ""},
		"reason=policy-denied":               {`{"drop_reason_desc":["POLICY_DENIED"]}`, ""},
		"reason=policy":                      {`{"drop_reason_desc":["POLICY_DENIED","POLICY_DENY"]}`, ""},
		"tcp-flags=syn,ack tcp-flags=rst":    {`{"tcp_flags":[{"SYN":true,"ACK":true},{"RST":true}]}`, ""},
		"workload=Deployment/web":            {`{"source_workload":[{"name":"web","kind":"Deployment"}]} | {"destination_workload":[{"name":"web","kind":"Deployment"}]}`, ""},
		"to-workload=web":                    {`{"destination_workload":[{"name":"web"}]}`, ""},
		"from-identity=world":                {`{"source_identity":[2]}`, ""},
		"ipv6 reply":                         {`{"ip_version":["IPv6"],"reply":[true]}`, ""},
		"not-reply":                          {`{"reply":[false]}`, ""},
		"ip-version=v4":                      {`{"ip_version":["IPv4"]}`, ""},
		"traffic-direction=ingress":          {`{"traffic_direction":["INGRESS"]}`, ""},
		"node-name=a* node-label=zone=a":     {`{"node_name":["a*"],"node_labels":["zone=a"]}`, ""},
		"uuid=x unencrypted cluster=c":       {`{"uuid":["x"],"encrypted":[false],"source_cluster_name":["c"]} | {"uuid":["x"],"encrypted":[false],"destination_cluster_name":["c"]}`, ""},
	} {
		allow, deny, err := parse(t, line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if a, d := canonical(t, text(t, allow)), canonical(t, text(t, deny)); a != canonical(t, want[0]) || d != canonical(t, want[1]) {
			t.Errorf("%s:\n%s\n%s\nwant\n%s\n%s", line, a, d, want[0], want[1])
		}
		if _, err := filter.Compile(allow, deny); err != nil {
			t.Errorf("%s: the server refuses it: %v", line, err)
		}
	}
}

// canonical sorts the fields of filters.
func canonical(t *testing.T, s string) string {
	t.Helper()
	var list []*flowpb.FlowFilter
	if s != "" {
		for part := range strings.SplitSeq(s, " | ") {
			f := &flowpb.FlowFilter{}
			if err := protojson.Unmarshal([]byte(part), f); err != nil {
				t.Fatalf("%s: %v", part, err)
			}
			list = append(list, f)
		}
	}
	return text(t, list)
}

func TestFiltersRefused(t *testing.T) {
	for line, want := range map[string]string{
		"not":                           "--not is followed by no filter",
		"not not":                       "one --not after the other",
		"verdict=maybe":                 "want FORWARDED",
		"port=http":                     "want a port",
		"to-ip=10.0.0.0/99":             "want an address or a CIDR",
		"pod=a from-pod=b":              "can't be combined",
		"ip=1.2.3.4 namespace=x":        "can't be combined",
		"reply not-reply":               "can't be combined",
		"from-namespace=a from-pod=b/c": "not in namespace a",
		"type=nonsense":                 "want one of",
		"type=drop:nonsense":            "sub-type",
		"reason=because":                "want a reason",
		"tcp-flags=syn,hello":           "want TCP flags",
		"identity=somebody":             "want a number",
		"traffic-direction=sideways":    "want ingress or egress",
		"ip-version=5":                  "want v4 or v6",
	} {
		if _, _, err := parse(t, line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"":                            {},
		"90s":                         now.Add(-90 * time.Second),
		"2026-03-04T01:02:03Z":        time.Date(2026, 3, 4, 1, 2, 3, 0, time.UTC),
		"2026-03-04T01:02:03.5+01:00": time.Date(2026, 3, 4, 0, 2, 3, 5e8, time.UTC),
		"2026-03-04T01:02Z":           time.Date(2026, 3, 4, 1, 2, 0, 0, time.UTC),
		"2026-03-04":                  time.Date(2026, 3, 4, 0, 0, 0, 0, time.Local),
	} {
		if got, err := observe.ParseTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"yesterday", "5", "2026-13-01"} {
		if got, err := observe.ParseTime(s, now); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}
