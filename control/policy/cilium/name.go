package cilium

import (
	"regexp"
	"strings"

	"github.com/sluice-net/sluice/control/policy"
)

var (
	validName    = regexp.MustCompile(`^([-a-zA-Z0-9_]+[.]?)+$`)
	validPattern = regexp.MustCompile(`^([-a-zA-Z0-9_*]+[.]?)+$`)
	onlyStars    = regexp.MustCompile(`^[*]+[.]?$`)
	manyLabels   = regexp.MustCompile(`^[*]{2,}\[\.\]`)
	stars        = regexp.MustCompile(`[*]+`)
)

// maxName is the longest name or pattern.
const maxName = 255

// readName reads an element of toFQDNs.
func (r *reading) readName(n node) (policy.Peer, bool) {
	name, ok := r.readPattern(n, true)
	return policy.Peer{Name: &name}, ok
}

// readPattern reads matchName or matchPattern. Of rules.dns both may be given,
// and matchName holds.
func (r *reading) readPattern(n node, single bool) (policy.Name, bool) {
	f, ok := n.object("matchName", "matchPattern")
	if !ok {
		return policy.Name{}, false
	}
	name, pattern := f["matchName"], f["matchPattern"]
	hasName, hasPattern := name.v != nil && name.v != "", pattern.v != nil && pattern.v != ""
	switch {
	case single && hasName && hasPattern:
		r.fault(n.at, "Forbidden: only one of matchName or matchPattern is allowed")
		return policy.Name{}, false
	case hasName:
		s := name.string()
		if len(s) > maxName || !validName.MatchString(s) {
			r.fault(name.at, "Invalid value: %s: not a name", name.text())
			return policy.Name{}, false
		}
		return policy.NewName(s, "^"+regexp.QuoteMeta(fqdn(s))+"$"), true
	case hasPattern:
		s := pattern.string()
		if len(s) > maxName || !validPattern.MatchString(s) {
			r.fault(pattern.at, "Invalid value: %s: not a pattern of names", pattern.text())
			return policy.Name{}, false
		}
		return policy.NewName(s, patternRegexp(s)), true
	}
	r.fault(n.at, "Required value: one of matchName and matchPattern")
	return policy.Name{}, false
}

// fqdn returns a name in lower case with its final dot.
func fqdn(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) + "." }

// patternRegexp says what names, with their final dots, a pattern matches: *
// stands for any characters within a label; **. at the start for one or more
// labels; nothing but stars for every name.
func patternRegexp(s string) string {
	const chars = "[-a-zA-Z0-9_]"
	if onlyStars.MatchString(s) {
		return "^(" + chars + "+[.])+$|^[.]$"
	}
	s = strings.ReplaceAll(fqdn(s), ".", "[.]")
	begin := ""
	if many := manyLabels.FindString(s); many != "" {
		begin, s = chars+"+([.]"+chars+"+)*[.]", s[len(many):]
	}
	return "^" + begin + stars.ReplaceAllString(s, chars+"*") + "$"
}
