package connectivity_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/sluice-net/sluice/tools/connectivity"
)

// kubeletLike serves exec as an API server does that knows no WebSockets: over
// SPDY, protocol version 4, where the outcome is a Status on a stream of its own.
type kubeletLike struct {
	t      *testing.T
	stdout string
	status string
}

func (k kubeletLike) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		http.Error(w, "no WebSockets here", http.StatusBadRequest)
		return
	}
	q := r.URL.Query()
	if r.URL.Path != "/api/v1/namespaces/x/pods/p/exec" || !slices.Equal(q["command"], []string{"/sluice", "connectivity", "dial", "[::1]:80"}) ||
		q.Get("stdout") != "true" || q.Get("stdin") == "true" {
		k.t.Errorf("asked for %s", r.URL)
	}
	if r.Header.Get("Authorization") != "Bearer secret" {
		k.t.Errorf("as %q", r.Header.Get("Authorization"))
	}
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		k.t.Errorf("handshake: %v", err)
		return
	}
	streams := make(chan httpstream.Stream, 3)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		k.t.Error("not upgraded")
		return
	}
	defer conn.Close()
	byType := map[string]httpstream.Stream{}
	for range 3 {
		select {
		case s := <-streams:
			byType[s.Headers().Get(corev1.StreamType)] = s
		case <-time.After(20 * time.Second):
			k.t.Errorf("streams %v", byType)
			return
		}
	}
	fmt.Fprint(byType[corev1.StreamTypeStdout], k.stdout)
	fmt.Fprint(byType[corev1.StreamTypeStderr], "said on stderr")
	fmt.Fprint(byType[corev1.StreamTypeError], k.status)
	for _, s := range byType {
		s.Close()
	}
	<-conn.CloseChan()
}

func TestExecByAPI(t *testing.T) {
	for name, c := range map[string]struct{ status, want string }{
		"ends well": {`{"metadata":{},"status":"Success"}`, ""},
		"fails": {`{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated",` +
			`"details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`, "said on stderr"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(kubeletLike{t, `{"passed":true}`, c.status})
			defer srv.Close()
			exec, err := connectivity.ExecByAPI(&rest.Config{Host: srv.URL, BearerToken: "secret"})
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec(t.Context(), "x", "p", []string{"/sluice", "connectivity", "dial", "[::1]:80"})
			switch {
			case c.want == "" && (err != nil || string(out) != `{"passed":true}`):
				t.Errorf("%q, %v", out, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}
