package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// formats are the forms in which a command writes what it found, by the name
// that -o gives them.
type formats[T any] map[string]func(io.Writer, T) error

// newFormats returns the forms that every command has: a table, json and yaml.
// Commands add their own.
func newFormats[T any](table func(io.Writer, T) error) formats[T] {
	return formats[T]{
		"table": table,
		"json":  func(w io.Writer, v T) error { return writeIndented(w, v) },
		"yaml":  func(w io.Writer, v T) error { return writeYAML(w, v) },
	}
}

func (f formats[T]) names() []string { return slices.Sorted(maps.Keys(f)) }

// register adds the flag -o.
func (f formats[T]) register(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", strings.Join(f.names(), ", "))
	cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(f.names(), cobra.ShellCompDirectiveNoFileComp))
}

// check is to be asked before there is anything to write.
func (f formats[T]) check(output string) error {
	if f[output] == nil {
		return usageError(fmt.Errorf("--output=%s: want one of %s", output, strings.Join(f.names(), ", ")))
	}
	return nil
}

func writeYAML(w io.Writer, v any) error {
	b, err := yaml.Marshal(v)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}
