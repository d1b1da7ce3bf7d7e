package manifest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-net/sluice/control/source/manifest"
	"github.com/sluice-net/sluice/control/store"
)

// FuzzLoad feeds anything to the reader: it never panics, never forgets what
// stood before in a file that doesn't parse, and loads the same bytes to the
// same result.
func FuzzLoad(f *testing.F) {
	f.Add("")
	f.Add("---\n...\n--- {}\n%YAML 1.2\n---\n[")
	f.Add(pod("a", "p") + "---\n" + np("a", "x", "{podSelector: {matchLabels: {k: v}}, ingress: [{ports: [{port: http, endPort: 3}]}]}"))
	f.Add(np("a", "x", "{podSelector: 3, policyTypes: [Egress, 4], egress: {}}"))
	f.Add(`{"kind":"List","apiVersion":"v1","items":[{"kind":"List","items":[null,1,{"kind":"Pod","apiVersion":"v1"}]}]}`)
	f.Add("apiVersion: v1\nkind: Pod\nmetadata: &a {name: x, labels: *a}\n")
	f.Add("\xef\xbb\xbfkind: Pod\r\napiVersion: v1\r\n---\r\nkind: !!binary x\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		write(t, path, np("keep", "me", "{podSelector: {}}"))
		src, st := open(t, path)
		write(t, path, text+"\n---\n]\n")
		reload(t, src)
		kept := false
		for _, n := range names(st) {
			kept = kept || n == "policy keep/me"
		}
		if !kept {
			t.Error("a file that doesn't parse took away what it said before")
		}
		if len(src.State().Rejections) == 0 {
			t.Error("a fault was not reported")
		}
		write(t, path, text)
		reload(t, src)
		fresh := store.New()
		second, err := manifest.Open(path, fresh)
		if err != nil {
			t.Fatal(err)
		}
		if len(second.State().Rejections) != len(src.State().Rejections) {
			t.Errorf("%v, then %v", src.State().Rejections, second.State().Rejections)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	})
}
