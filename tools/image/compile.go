package image

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// compile builds the binaries of one architecture.
func compile(o Options, arch, dir string) (*part, error) {
	var infos []*buildinfo.BuildInfo
	for _, p := range programs {
		file := filepath.Join(dir, p.name)
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs="+strconv.FormatBool(o.Stamp),
			"-ldflags=-s -w -buildid=", "-o", file, p.pkg)
		cmd.Dir = o.Source
		cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch), o.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s for %s: %w: %s", p.name, arch, err, out)
		}
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read build information: %w", err)
		}
		infos = append(infos, info)
	}
	p := &part{arch: arch, about: aboutOf(infos[0])}
	var err error
	if p.sbom, err = bill(p.about, arch, dir, infos); err != nil {
		return nil, err
	}
	p.files, err = contents(o, dir, p.sbom)
	return p, err
}

// aboutOf takes version and time from where "sluice version" takes them. A tree
// without a commit has the time 0.
func aboutOf(info *buildinfo.BuildInfo) about {
	a := about{version: "devel", created: time.Unix(0, 0).UTC()}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		a.version = strings.ReplaceAll(v, "+", "-") // which tags can't have
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			a.revision = s.Value
		case "vcs.time":
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				a.created = t.UTC()
			}
		}
	}
	return a
}
