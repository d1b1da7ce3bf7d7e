package scenario

import (
	"fmt"
	"slices"
	"strings"
)

// All is the name that stands for all workloads.
const All = "all"

// Select returns the workloads of these names, in their usual order. A name
// also stands for all that begin with it and a hyphen; no name stands for the
// standard ones, with their standard systems.
func Select(names []string) ([]Workload, error) {
	all := Workloads()
	if len(names) == 0 {
		all = slices.DeleteFunc(all, func(w Workload) bool { return len(w.Standard) == 0 })
		for i := range all {
			all[i].Systems = all[i].Standard
		}
		return all, nil
	}
	if slices.Contains(names, All) {
		return all, nil
	}
	matches := func(w Workload, name string) bool {
		return w.Name == name || strings.HasPrefix(w.Name, name+"-")
	}
	for _, n := range names {
		if !slices.ContainsFunc(all, func(w Workload) bool { return matches(w, n) }) {
			return nil, fmt.Errorf("scenario %q: want %s, %s", n, All, nameList(all, func(w Workload) string { return w.Name }))
		}
	}
	return slices.DeleteFunc(all, func(w Workload) bool {
		return !slices.ContainsFunc(names, func(n string) bool { return matches(w, n) })
	}), nil
}

func nameList[T any](list []T, name func(T) string) string {
	var out []string
	for _, v := range list {
		out = append(out, name(v))
	}
	return strings.Join(out, ", ")
}
