package api_test

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/sluice-net/sluice/control/api"
)

// What was waited for in vain is said as it is: who waits for a policy to go is not
// told that it is not in force.
func TestWaitedInVain(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "NetworkPolicy x/p is still there", http.StatusGatewayTimeout)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	_, err = api.NewClient(socket).Wait(t.Context(), api.WaitFor{Gone: true})
	want := "agent at " + socket + ": not in time: NetworkPolicy x/p is still there"
	if err == nil || err.Error() != want || !errors.Is(err, api.ErrNotInForce) {
		t.Errorf("%v, want %s", err, want)
	}
}
