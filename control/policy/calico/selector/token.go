package selector

import (
	"errors"
	"fmt"
	"strings"
)

type kind uint8

const (
	tokEnd kind = iota
	tokLabel
	tokText // a quoted string
	tokOpenBrace
	tokCloseBrace
	tokComma
	tokOpen
	tokClose
	tokNot
	tokAnd
	tokOr
	tokHas
	tokAll
	tokGlobal
	tokEqual
	tokNotEqual
	tokIn
	tokNotIn
	tokContains
	tokStartsWith
	tokEndsWith
)

type token struct {
	kind kind
	text string
}

// maxName is the longest name of a label.
const maxName = 512

// symbols begin with a character that no name has.
var symbols = []struct {
	text string
	kind kind
}{
	{"(", tokOpen}, {")", tokClose}, {"{", tokOpenBrace}, {"}", tokCloseBrace}, {",", tokComma},
	{"==", tokEqual}, {"!=", tokNotEqual}, {"!", tokNot}, {"&&", tokAnd}, {"||", tokOr},
}

// operators are the words that may stand behind a label. Their own words may
// be run together; what follows the last one must not look like a name.
var operators = []struct {
	words []string
	kind  kind
}{
	{[]string{"contains"}, tokContains},
	{[]string{"starts", "with"}, tokStartsWith},
	{[]string{"ends", "with"}, tokEndsWith},
	{[]string{"not", "in"}, tokNotIn},
	{[]string{"in"}, tokIn},
}

// tokenize cuts a selector up. The last token is tokEnd.
func tokenize(in string) ([]token, error) {
	var out []token
	for {
		in = skipSpace(in)
		if in == "" {
			return append(out, token{kind: tokEnd}), nil
		}
		afterLabel := len(out) > 0 && out[len(out)-1].kind == tokLabel
		t, rest, err := next(in, afterLabel)
		if err != nil {
			return nil, err
		}
		out, in = append(out, t), rest
	}
}

func next(in string, afterLabel bool) (token, string, error) {
	if in[0] == '"' || in[0] == '\'' {
		text, rest, ok := strings.Cut(in[1:], in[:1])
		if !ok {
			return token{}, "", errors.New("unterminated string")
		}
		return token{tokText, text}, rest, nil
	}
	for _, s := range symbols {
		if rest, ok := strings.CutPrefix(in, s.text); ok {
			return token{kind: s.kind}, rest, nil
		}
	}
	switch in[0] {
	case '=', '&', '|':
		return token{}, "", fmt.Errorf("expected %c%c", in[0], in[0])
	}
	if afterLabel {
		return operator(in)
	}
	return word(in)
}

// operator reads what follows a label.
func operator(in string) (token, string, error) {
search:
	for _, o := range operators {
		rest := in
		for i, w := range o.words {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, w); !ok {
				continue search
			}
			if i+1 < len(o.words) || len(o.words) > 1 {
				rest = skipSpace(rest)
			}
		}
		if rest == "" || !inName(rest[0]) {
			return token{kind: o.kind}, rest, nil
		}
	}
	return token{}, "", errors.New("expected operator after label")
}

// word reads a function or a label.
func word(in string) (token, string, error) {
	if rest, ok := strings.CutPrefix(in, "has("); ok {
		name, rest, err := name(skipSpace(rest))
		if err != nil {
			return token{}, "", err
		}
		rest, ok = strings.CutPrefix(skipSpace(rest), ")")
		if !ok {
			return token{}, "", errors.New("no closing ')' after has(")
		}
		return token{tokHas, name}, rest, nil
	}
	for _, f := range [2]token{{tokAll, "all("}, {tokGlobal, "global("}} {
		if rest, ok := strings.CutPrefix(in, f.text); ok {
			if rest, ok = strings.CutPrefix(skipSpace(rest), ")"); !ok {
				return token{}, "", fmt.Errorf("no closing ')' after %s", f.text)
			}
			return token{kind: f.kind}, rest, nil
		}
	}
	label, rest, err := name(in)
	return token{tokLabel, label}, rest, err
}

// name reads the name of a label.
func name(in string) (name, rest string, err error) {
	n := 0
	for n < len(in) && inName(in[n]) {
		n++
	}
	switch {
	case n == 0:
		return "", "", errors.New("expected identifier")
	case n > maxName:
		return "", "", fmt.Errorf("label too long: %d bytes, at most %d", n, maxName)
	}
	return in[:n], in[n:], nil
}

func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == '/' || c == '-'
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t") }
