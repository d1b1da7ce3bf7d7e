package manifest

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	yaml3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// yamlToJSON converts a document as kubectl does, but refuses keys that are
// there twice. It shields from the YAML parsers, which panic on some input.
func yamlToJSON(text []byte) (out []byte, err error) {
	defer shield(&out, &err)
	out, err = yaml.YAMLToJSONStrict(text)
	if err != nil && bytes.Contains(text, []byte("<<")) {
		// Strictness takes what overrides a merged key for a repetition.
		var root yaml3.Node
		if yaml3.Unmarshal(text, &root) == nil && !repeats(&root) {
			return yaml.YAMLToJSON(text)
		}
	}
	return out, err
}

func shield(out *[]byte, err *error) {
	if r := recover(); r != nil {
		*out, *err = nil, fmt.Errorf("not understood: %v", r)
	}
}

// repeats reports whether some mapping has a key twice.
func repeats(n *yaml3.Node) bool {
	if n.Kind == yaml3.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind == yaml3.ScalarNode && seen[k.Value] {
				return true
			}
			seen[k.Value] = true
		}
	}
	return slices.ContainsFunc(n.Content, repeats)
}

// oldBooleans finds where a plain scalar may stand that YAML 1.1, and so kubectl,
// takes for a boolean, and YAML 1.2 for text.
var oldBooleans = regexp.MustCompile(`(?mi)(^|[\s:,\[{-])(y|n|yes|no|on|off)[ \t\r]*($|[,\]}#])`)

// asText converts a document as yamlToJSON does, with such scalars as text; nil
// if there are none.
func asText(text []byte) (out []byte) {
	var err error
	defer shield(&out, &err)
	var root yaml3.Node
	if yaml3.Unmarshal(text, &root) != nil || !quote(&root) {
		return nil
	}
	quoted, err := yaml3.Marshal(&root)
	if err != nil {
		return nil
	}
	if out, err = yamlToJSON(quoted); err != nil {
		return nil
	}
	return out
}

// quote puts them into quotes, and reports whether there were any.
func quote(n *yaml3.Node) (any bool) {
	if n.Kind == yaml3.ScalarNode && n.Style == 0 {
		switch strings.ToLower(n.Value) {
		case "y", "n", "yes", "no", "on", "off":
			n.Tag, n.Style = "!!str", yaml3.DoubleQuotedStyle
			return true
		}
	}
	for _, c := range n.Content {
		any = quote(c) || any
	}
	return any
}
