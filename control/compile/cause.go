package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-net/sluice/dataplane/rule"
)

// A cause that no Set needs any more keeps its number for at least this many
// Sets and until this many others have been freed after it: flows that ended
// long after their policy did still name it.
const (
	quarantineSets   = 4096
	quarantineCauses = 16384
)

// causes gives numbers to causes. A cause keeps its number for as long as it
// is in use, and gets it back if it returns within the quarantine.
type causes struct {
	set     uint64 // Sets begun so far
	byRule  map[rule.PolicyRef]rule.CauseID
	byKey   map[string]rule.CauseID // defaults and texts
	entries []entry                 // by CauseID
	list    []rule.Cause            // by CauseID; published: appended to, or copied
	cloned  uint64                  // last Set for which list was copied
	freed   []freed                 // oldest first
	live    int                     // in use when some were freed last
	taken   int                     // numbers since then
	handed  int                     // length of list when it was last handed out
}

type entry struct {
	key  string // of byKey, or empty
	used uint64 // last Set that needed it
	free bool
}

type freed struct {
	id  rule.CauseID
	set uint64
}

func newCauses() *causes {
	return &causes{byRule: map[rule.PolicyRef]rule.CauseID{}, byKey: map[string]rule.CauseID{},
		entries: make([]entry, 1), list: make([]rule.Cause, 1)}
}

func (c *causes) begin() { c.set++ }

// rule returns the number of a policy's rule.
func (c *causes) rule(ref rule.PolicyRef) rule.CauseID {
	id, ok := c.byRule[ref]
	if !ok {
		id = c.take(rule.Cause{Refs: []rule.PolicyRef{ref}}, "")
		c.byRule[ref] = id
	}
	c.use(id)
	return id
}

// defaults returns the number of the isolation by all of refs.
func (c *causes) defaults(refs []rule.PolicyRef) rule.CauseID {
	slices.SortFunc(refs, compareRefs)
	refs = slices.Compact(refs)
	return c.keyed(fmt.Sprintf("refs %#v", refs), rule.Cause{Refs: refs})
}

// text returns the number of a reason that is no policy.
func (c *causes) text(s string) rule.CauseID {
	return c.keyed("text "+s, rule.Cause{Text: s})
}

func (c *causes) keyed(key string, cause rule.Cause) rule.CauseID {
	id, ok := c.byKey[key]
	if !ok {
		id = c.take(cause, key)
		c.byKey[key] = id
	}
	c.use(id)
	return id
}

func (c *causes) use(id rule.CauseID) {
	c.entries[id].used = c.set
	c.entries[id].free = false
}

// take finds a number: the one freed longest ago, if its quarantine is over,
// or a new one.
func (c *causes) take(cause rule.Cause, key string) rule.CauseID {
	c.taken++
	for len(c.freed) > quarantineCauses && c.freed[0].set+quarantineSets < c.set {
		id := c.freed[0].id
		freedIn := c.freed[0].set
		c.freed = c.freed[1:]
		if e := &c.entries[id]; !e.free || e.used > freedIn {
			continue // it came back meanwhile
		}
		c.forget(id)
		if c.cloned != c.set { // earlier Sets keep theirs
			c.list, c.cloned = slices.Clone(c.list), c.set
		}
		c.list[id] = cause
		c.entries[id] = entry{key: key}
		return id
	}
	c.list = append(c.list, cause)
	c.entries = append(c.entries, entry{key: key})
	return rule.CauseID(len(c.list) - 1)
}

func (c *causes) forget(id rule.CauseID) {
	if key := c.entries[id].key; key != "" {
		delete(c.byKey, key)
	} else {
		delete(c.byRule, c.list[id].Refs[0])
	}
}

// end frees what the Set didn't need and returns its list of causes.
func (c *causes) end() []rule.Cause {
	c.live, c.taken = 0, 0
	for id := 1; id < len(c.entries); id++ {
		switch e := &c.entries[id]; {
		case e.free:
		case e.used < c.set:
			e.free = true
			c.freed = append(c.freed, freed{rule.CauseID(id), c.set})
		default:
			c.live++
		}
	}
	c.handed = len(c.list)
	return slices.Clip(c.list)
}

// published returns the list of causes, and nil if it is as it was handed out
// last. Nothing is freed.
func (c *causes) published() []rule.Cause {
	if c.handed == len(c.list) && c.cloned != c.set {
		return nil
	}
	c.handed = len(c.list)
	return slices.Clip(c.list)
}

func compareRefs(a, b rule.PolicyRef) int {
	for _, d := range []int{strings.Compare(a.Tier, b.Tier), strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name), strings.Compare(a.Kind, b.Kind), strings.Compare(a.Path, b.Path), a.Rule - b.Rule} {
		if d != 0 {
			return d
		}
	}
	return int(a.Direction) - int(b.Direction)
}
