package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// list is a network configuration list (CNI specification, section 1). Fields
// that mean nothing here go through as they are.
type list struct {
	fields  map[string]json.RawMessage
	plugins []json.RawMessage
}

// parseList reads a list and checks what chaining needs.
func parseList(data []byte) (*list, error) {
	l := &list{}
	if err := json.Unmarshal(data, &l.fields); err != nil {
		return nil, fmt.Errorf("decode configuration list: %w", err)
	}
	if err := json.Unmarshal(l.fields["plugins"], &l.plugins); err != nil {
		return nil, fmt.Errorf("decode plugins: %w", err)
	}
	if len(l.plugins) == 0 {
		return nil, errors.New("configuration list has no plugins")
	}
	return l, checkVersion(l.fields)
}

// checkVersion refuses configurations whose plugins aren't told of each other's
// results: those before 0.3.0.
func checkVersion(fields map[string]json.RawMessage) error {
	var v string
	if raw, ok := fields["cniVersion"]; ok {
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("decode cniVersion: %w", err)
		}
	}
	if v == "" {
		v = "0.2.0" // what runtimes take for none
	}
	var major, minor, patch int
	if _, err := fmt.Sscanf(v, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return fmt.Errorf("read cniVersion %q: %w", v, err)
	}
	if major == 0 && minor < 3 {
		return fmt.Errorf("cniVersion %s has no chained plugins: want 0.3.0 or later", v)
	}
	return nil
}

// ours reports whether a plugin's configuration is a call of Sluice's.
func ours(plugin json.RawMessage) bool {
	var p struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(plugin, &p) == nil && p.Type == Plugin
}

// without returns the plugins but ours.
func (l *list) without() []json.RawMessage {
	var others []json.RawMessage
	for _, p := range l.plugins {
		if !ours(p) {
			others = append(others, p)
		}
	}
	return others
}

// encode writes the list with other plugins.
func (l *list) encode(plugins []json.RawMessage) ([]byte, error) {
	raw, err := json.Marshal(plugins)
	if err != nil {
		return nil, fmt.Errorf("encode plugins: %w", err)
	}
	fields := maps.Clone(l.fields)
	fields["plugins"] = raw
	data, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode configuration list: %w", err)
	}
	return append(data, '\n'), nil
}

// addTo returns the list with our call behind all others, or data itself if it
// is there just so.
func addTo(data []byte, entry map[string]any) ([]byte, error) {
	l, err := parseList(data)
	if err != nil {
		return nil, err
	}
	call, err := encodeEntry(entry)
	if err != nil {
		return nil, err
	}
	others := l.without()
	if len(others) == 0 {
		return nil, errors.New("configuration list has no other plugin to chain to")
	}
	if len(others) == len(l.plugins)-1 && same(l.plugins[len(l.plugins)-1], call) {
		return data, nil
	}
	return l.encode(append(others, call))
}

// removeFrom returns the list without our call.
func removeFrom(data []byte) ([]byte, error) {
	l, err := parseList(data)
	if err != nil {
		return nil, err
	}
	others := l.without()
	if len(others) == len(l.plugins) {
		return data, nil
	}
	return l.encode(others)
}

// wrap makes a list of a single configuration.
func wrap(data []byte, entry map[string]any) ([]byte, error) {
	var one map[string]json.RawMessage
	if err := json.Unmarshal(data, &one); err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	if one["type"] == nil || one["name"] == nil {
		return nil, errors.New("configuration has no type or no name")
	}
	if err := checkVersion(one); err != nil {
		return nil, err
	}
	call, err := encodeEntry(entry)
	if err != nil {
		return nil, err
	}
	l := &list{fields: map[string]json.RawMessage{"name": one["name"], "cniVersion": one["cniVersion"]}}
	delete(one, "name")
	delete(one, "cniVersion")
	first, err := json.Marshal(one)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return l.encode([]json.RawMessage{first, call})
}

func encodeEntry(entry map[string]any) (json.RawMessage, error) {
	full := map[string]any{"type": Plugin}
	maps.Copy(full, entry)
	data, err := json.Marshal(full)
	if err != nil {
		return nil, fmt.Errorf("encode plugin configuration: %w", err)
	}
	return data, nil
}

// entryOf returns the fields of our call in a list.
func entryOf(data []byte) map[string]any {
	l, err := parseList(data)
	if err != nil {
		return nil
	}
	for _, p := range l.plugins {
		var entry map[string]any
		if ours(p) && json.Unmarshal(p, &entry) == nil {
			return entry
		}
	}
	return nil
}

// same reports whether two JSON values are equal.
func same(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err == nil && err2 == nil && string(p) == string(q)
}
