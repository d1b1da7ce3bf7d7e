package netlab_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/sluice-net/sluice/bench/netlab"
)

// besideIPVar has the test binary be the inner part of TestBesideIP.
const besideIPVar = "SLUICE_TEST_BESIDE_IP"

// TestBesideIP creates namespaces where ip(8) has made none yet, and takes them
// away after it has. The inner part sees an empty /run of its own.
func TestBesideIP(t *testing.T) {
	needRoot(t)
	if os.Getenv(besideIPVar) == "" {
		cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec",
			`mount -t tmpfs none /run; exec "$0" -test.run '^TestBesideIP$' -test.count 1`, os.Args[0])
		cmd.Env = append(os.Environ(), besideIPVar+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v: %s", args, err, out)
		}
	}
	for _, name := range []string{"a", "b"} {
		ns, err := netlab.CreateNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
	}
	ip("netns", "add", "c")
	ip("netns", "delete", "a")
	for _, name := range []string{"b", "c"} {
		if err := netlab.DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	}
	if left, err := netlab.Namespaces(""); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
