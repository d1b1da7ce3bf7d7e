package image

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The parts of SPDX 2.3 that are used.
type spdx struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      spdxCreation   `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []spdxRelation `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	Name      string         `json:"name"`
	ID        string         `json:"SPDXID"`
	Version   string         `json:"versionInfo,omitempty"`
	Purpose   string         `json:"primaryPackagePurpose,omitempty"`
	Location  string         `json:"downloadLocation"`
	Analyzed  bool           `json:"filesAnalyzed"`
	Concluded string         `json:"licenseConcluded"`
	Declared  string         `json:"licenseDeclared"`
	Copyright string         `json:"copyrightText"`
	Checksums []spdxChecksum `json:"checksums,omitempty"`
	Refs      []spdxRef      `json:"externalRefs,omitempty"`
}

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	spdxDocument = "SPDXRef-DOCUMENT"
	noAssertion  = "NOASSERTION"
)

var notInID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// bill lists what the binaries are made of, as their Go build information has
// it: modules with their versions, and Go itself.
func bill(a about, arch, dir string, infos []*buildinfo.BuildInfo) ([]byte, error) {
	doc := spdx{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: spdxDocument, Name: "sluice-" + arch,
		Creation: spdxCreation{Created: a.created.Format(time.RFC3339), Creators: []string{"Tool: sluice-image"}},
	}
	modules := map[string]spdxPackage{}
	names := sha256.New()
	for i, info := range infos {
		data, err := os.ReadFile(filepath.Join(dir, programs[i].name))
		if err != nil {
			return nil, fmt.Errorf("read binary for SBOM: %w", err)
		}
		sum := sha256.Sum256(data)
		names.Write(sum[:])
		root := describe(programs[i].name, a.version)
		root.ID = "SPDXRef-Binary-" + programs[i].name
		root.Purpose, root.Declared = "APPLICATION", "Apache-2.0"
		root.Checksums = []spdxChecksum{{"SHA256", hex.EncodeToString(sum[:])}}
		doc.Packages = append(doc.Packages, root)
		doc.Relationships = append(doc.Relationships, spdxRelation{spdxDocument, "DESCRIBES", root.ID})
		parts := []spdxPackage{module("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
		for _, d := range info.Deps {
			if d.Replace != nil {
				d = d.Replace
			}
			parts = append(parts, module(d.Path, d.Version))
		}
		for _, m := range parts {
			modules[m.ID] = m
			doc.Relationships = append(doc.Relationships, spdxRelation{root.ID, "STATIC_LINK", m.ID})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(modules)) {
		doc.Packages = append(doc.Packages, modules[id])
	}
	doc.Namespace = fmt.Sprintf("https://github.com/sluice-net/sluice/spdx/%s/%s-%x", a.version, arch, names.Sum(nil)[:8])
	return json.MarshalIndent(doc, "", " ")
}

func describe(name, version string) spdxPackage {
	return spdxPackage{Name: name, Version: version, Location: noAssertion, Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion}
}

func module(path, version string) spdxPackage {
	p := describe(path, version)
	p.ID = "SPDXRef-Module-" + notInID.ReplaceAllString(path+"-"+version, "-")
	p.Refs = []spdxRef{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}}
	return p
}
