// Package query reads files of questions, one JSON object a line, for the commands
// that answer them: what is wrong with a line is said in the same words by all.
package query

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Lines calls visit with each line that is not empty, valid until it returns, and
// the line's number.
func Lines(r io.Reader, visit func(line []byte, number int)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			visit(line, n)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read queries: %w", err)
	}
	return nil
}

// Fault says what json.Unmarshal found wrong with a line; nil if it found nothing.
func Fault(err error) error {
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &wrong):
		return fmt.Errorf("not a query: %w", err)
	case wrong.Field == "":
		return fmt.Errorf("not a query: want an object, got %s", wrong.Value)
	}
	field := wrong.Field[strings.LastIndexByte(wrong.Field, '.')+1:] // without Go's embedded structs
	return fmt.Errorf("%s: want a %s, got %s", field, wrong.Type, wrong.Value)
}
