package control

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/sluice-net/sluice/control/api"
	"github.com/sluice-net/sluice/control/store"
)

// sandboxes is what CNI plugins have told the agent. A file a sandbox keeps it
// for the next agent: a pod's status names its addresses only some time after
// its sandbox was made.
type sandboxes struct {
	dir string

	mu    sync.Mutex
	all   map[api.Attachment]*sandboxState
	next  chan struct{} // closed after the next turn
	swept time.Time
}

type sandboxState struct {
	api.Sandbox
	Leaving bool `json:"leaving,omitempty"`
}

func newSandboxes(dir string) *sandboxes {
	return &sandboxes{dir: dir, all: make(map[api.Attachment]*sandboxState), next: make(chan struct{}), swept: time.Now()}
}

// sandboxDir is where the sandboxes' files are: a folder that is nobody else's.
func sandboxDir(cfg Config) string { return cfg.Socket + ".sandboxes" }

// tellerOf names a sandbox to the finder.
func tellerOf(at api.Attachment) string { return at.ContainerID + "/" + at.IfName }

// The CNI specification's, section 2: what identifiers consist of; and what the
// kernel takes for a link's name.
var (
	containerRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)
	linkRE      = regexp.MustCompile(`^[^/\s:]{1,15}$`)
)

func checkAttachment(at api.Attachment) error {
	if len(at.ContainerID) > 200 || !containerRE.MatchString(at.ContainerID) {
		return fmt.Errorf("container ID %q: want letters, digits, '_', '.' and '-'", at.ContainerID)
	}
	if !linkRE.MatchString(at.IfName) || at.IfName == "." || at.IfName == ".." {
		return fmt.Errorf("interface name %q: want at most 15 characters, no '/', ':' or space", at.IfName)
	}
	return nil
}

// file is unique: an interface's name has no slash, and a container's no colon.
func (l *sandboxes) file(at api.Attachment) string {
	return filepath.Join(l.dir, at.ContainerID+":"+at.IfName+".json")
}

// add remembers a sandbox, also beyond this process.
func (l *sandboxes) add(s api.Sandbox) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	data, err := json.Marshal(sandboxState{Sandbox: s})
	if err == nil {
		err = os.MkdirAll(l.dir, 0o700)
	}
	tmp := l.file(s.Attachment) + ".new"
	if err == nil {
		err = os.WriteFile(tmp, data, 0o600)
	}
	if err == nil {
		err = os.Rename(tmp, l.file(s.Attachment))
	}
	if err != nil {
		return fmt.Errorf("remember sandbox %s: %w", s.ContainerID, err)
	}
	l.all[s.Attachment] = &sandboxState{Sandbox: s}
	return nil
}

// load reads what an earlier agent remembered. What can't be read is removed.
func (l *sandboxes) load() []sandboxState {
	files, err := filepath.Glob(filepath.Join(l.dir, "*"))
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []sandboxState
	for _, f := range files {
		var s sandboxState
		data, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil || !strings.HasSuffix(f, ".json") || f != l.file(s.Attachment) {
			_ = os.Remove(f)
			continue
		}
		l.all[s.Attachment] = &s
		out = append(out, s)
	}
	return out
}

// leave marks a sandbox that is about to go.
func (l *sandboxes) leave(at api.Attachment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.all[at]; s != nil {
		s.Leaving = true
	}
}

// remove forgets a sandbox, unless it has another link by now: a container that starts
// again may keep its ID. It reports whether it did.
func (l *sandboxes) remove(s *api.Sandbox) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.all[s.Attachment]
	if now == nil || now.Ifindex != s.Ifindex || now.Link != s.Link {
		return false
	}
	delete(l.all, s.Attachment)
	_ = os.Remove(l.file(s.Attachment)) // else the next agent reads it, and finds its link gone
	return true
}

// due lists the sandboxes to look after: those that leave, and now and then all.
func (l *sandboxes) due(every time.Duration) (list []sandboxState, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if all = time.Since(l.swept) > every; all {
		l.swept = time.Now()
	}
	return l.those(func(s *sandboxState) bool { return all || s.Leaving }), all
}

func (l *sandboxes) list() []sandboxState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.those(func(*sandboxState) bool { return true })
}

// those lists some sandboxes. l.mu is held.
func (l *sandboxes) those(fit func(*sandboxState) bool) (out []sandboxState) {
	for _, s := range l.all {
		if fit(s) {
			out = append(out, *s)
		}
	}
	return out
}

// has reports whether a pod has a sandbox that doesn't leave.
func (l *sandboxes) has(pod store.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.all {
		if podOf(&s.Sandbox) == pod && !s.Leaving {
			return true
		}
	}
	return false
}

// nextTurn returns a channel that is closed after the loop's next turn.
func (l *sandboxes) nextTurn() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

func (l *sandboxes) turned() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.next)
	l.next = make(chan struct{})
}
