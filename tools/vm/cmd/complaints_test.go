package main

import (
	"strings"
	"testing"
)

// What a subtest says is shown though one that passes comes between that and its
// failure, and no more of it than its beginning.
func TestComplaints(t *testing.T) {
	log := "=== RUN   TestA\n    a_test.go:1: fine\n--- PASS: TestA (0.1s)\n=== RUN   TestB\n=== RUN   TestB/bad\n    b_test.go:2: expected this\n" +
		"    agent_test.go:3: agent's log:\n" + strings.Repeat("        line\n", 100) +
		"=== RUN   TestB/good\n    b_test.go:4: fine, too\n=== NAME  TestB/bad\n    b_test.go:5: and that\n" +
		"--- FAIL: TestB (2.0s)\n    --- FAIL: TestB/bad (1.0s)\n    --- PASS: TestB/good (1.0s)\nguest: exit status 1\n"
	got := complaints(log)
	for _, want := range []string{"expected this", "and that", "--- FAIL: TestB/bad", "guest: exit status 1"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(got, "fine") || strings.Count(got, "line") > 40 {
		t.Error("more than that is shown")
	}
	if t.Failed() {
		t.Log(got)
	}
}
