package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	kjson "sigs.k8s.io/json"
)

// part is one YAML document of a file.
type part struct {
	number int // from 1, documents without content don't count
	line   int // of its first line, from 1
	text   []byte
}

// Document is one document of a file.
type Document struct {
	Number int    // from 1, documents without content don't count
	JSON   []byte // an object
	Err    error  // why it can't be read
}

// Documents reads a file as a Source does, for who needs more of it.
func Documents(data []byte) []Document {
	var out []Document
	for _, p := range split(data) {
		if doc, _, err := p.read(); err != nil || doc != nil {
			out = append(out, Document{p.number, doc, err})
		}
	}
	return out
}

// split cuts a file at its document markers. A marker at the start of a line
// ends a document whatever precedes it (YAML 1.2, 9.1.2), so no parser is
// needed to find it, and a fault in one document leaves the others alone.
func split(data []byte) []part {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var parts []part
	start, startLine := 0, 1
	flush := func(end int) {
		line := startLine
		for _, text := range stream(data[start:end]) {
			if hasContent(text) {
				parts = append(parts, part{number: len(parts) + 1, line: line, text: text})
			}
			line += bytes.Count(text, []byte("\n"))
		}
	}
	for pos, line := 0, 1; pos < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if isMarker(data[pos:end]) {
			flush(pos)
			start, startLine = pos+3, line
		}
		pos = end
	}
	flush(len(data))
	return parts
}

// stream cuts a document where one JSON object follows another, without a
// marker, as kubectl does. From where it is no JSON it stays whole.
func stream(text []byte) [][]byte {
	if t := bytes.TrimSpace(text); len(t) == 0 || t[0] != '{' {
		return [][]byte{text}
	}
	var out [][]byte
	objects := json.NewDecoder(bytes.NewReader(text))
	for at := int64(0); ; at = objects.InputOffset() {
		var one json.RawMessage
		switch err := objects.Decode(&one); {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			return append(out, text[at:])
		}
		out = append(out, text[at:objects.InputOffset()])
	}
}

func isMarker(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	if !ok {
		rest, ok = bytes.CutPrefix(line, []byte("..."))
	}
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// hasContent reports whether there is more than comments, directives and
// space.
func hasContent(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

var yamlLine = regexp.MustCompile(`^(?:error converting YAML to JSON: )?(?:yaml: )?(?:unmarshal errors:\s+)?line (\d+): `)

// toJSON returns a document as a JSON object. An error names the line in the
// file where it is known.
func (p part) toJSON() ([]byte, error) {
	text := bytes.TrimSpace(p.text)
	if len(text) > 0 && text[0] == '{' && json.Valid(text) { // as a whole: what follows an object must not get lost
		var probe map[string]any
		if strict, err := kjson.UnmarshalStrict(text, &probe); err == nil {
			return text, errors.Join(strict...)
		}
	}
	out, err := yamlToJSON(p.text)
	if err != nil {
		return nil, p.locate(err)
	}
	if bytes.Equal(out, []byte("null")) {
		return nil, nil
	}
	if out[0] != '{' {
		return nil, fmt.Errorf("line %d: not an object", p.line)
	}
	return out, nil
}

// read returns a document as a JSON object, nil if there is nothing in it. If
// scalars that are booleans to kubectl make objects invalid that are valid with
// them as text, as YAML 1.2 has it, they are text.
func (p part) read() (doc []byte, quoted bool, err error) {
	doc, err = p.toJSON()
	if err != nil || doc == nil {
		return nil, false, err
	}
	if !oldBooleans.Match(p.text) {
		return doc, false, nil
	}
	if n := faults(doc); n > 0 { // else it is as kubectl has it
		if other := asText(p.text); other != nil && faults(other) < n {
			return other, true, nil
		}
	}
	return doc, false, nil
}

// faults says how much is wrong with the objects of a document: first of all
// values of a wrong type, which have no field of their own.
func faults(doc []byte) (n int) {
	var f file
	f.decode("", doc)
	for _, r := range f.rejections {
		if n++; r.Field == "" {
			n += 1 << 20
		}
	}
	return n
}

// locate turns a line of the document into a line of the file.
func (p part) locate(err error) error {
	msg := err.Error()
	m := yamlLine.FindStringSubmatchIndex(msg)
	if m == nil {
		return fmt.Errorf("line %d: %s", p.line, msg)
	}
	n, _ := strconv.Atoi(msg[m[2]:m[3]])
	return fmt.Errorf("line %d: %s", p.line+n-1, msg[m[1]:])
}
