// Package examples holds policies as users write them, each with the pods that
// they are about and queries that say what must be possible and what must not.
package examples

import "embed"

// FS has a folder for each example.
//
//go:embed */*.yaml */queries.jsonl
var FS embed.FS
