package doctor

import (
	"bytes"
	"regexp"
)

// secretName is a name of a field or of a log's key that suggests a secret.
const secretName = `[a-z0-9_.-]*(?:password|passwd|secret|token|credential|private[_-]?key|api[_-]?key|client[_-]?key)[a-z0-9_.-]*`

var (
	// secret matches such a field or key with its value, up to its end in JSON, and
	// what a bearer or a JSON web token looks like.
	secret = regexp.MustCompile(`(?i)((?:` + secretName + `)["']?\s*[:=]\s*)("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}]+)` +
		`|(bearer\s+|authorization["']?\s*[:=]\s*["']?basic\s+)[^\s"']+|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*` +
		`|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`)
	// secretLine matches a line of YAML that begins such a field without quotes: its
	// value goes to the end of the line, and on below.
	secretLine = regexp.MustCompile(`(?i)^([ -]*)` + secretName + `:(?:$|\s+[^"'\s]|\s*$)`)
)

// Blank takes out of a text what looks like a secret.
func Blank(text []byte) []byte {
	return secret.ReplaceAll(blankLines(text), []byte("${1}${3}[blanked]"))
}

// blankLines blanks values of YAML that need not end with a line, or a word.
func blankLines(text []byte) []byte {
	var out []byte
	inside := -1 // how far the field is indented whose value is left out
	for line := range bytes.Lines(text) {
		body := bytes.TrimRight(line, "\r\n")
		depth := len(body) - len(bytes.TrimLeft(body, " "))
		if inside >= 0 && (depth > inside || depth == len(body) || depth == inside && bytes.HasPrefix(body[depth:], []byte("- "))) {
			continue
		}
		inside = -1
		if m := secretLine.FindSubmatch(body); m != nil {
			inside = len(m[1])
			out = append(append(out, body[:bytes.IndexByte(body, ':')+1]...), " [blanked]"...)
			out = append(out, line[len(body):]...)
			continue
		}
		out = append(out, line...)
	}
	return out
}
