package kube

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-net/sluice/control/policy"
	"github.com/sluice-net/sluice/control/store"
)

// State is what is known of the cluster, and how well.
type State struct {
	// Synced: all that the cluster served was known at least once. Before, the
	// store holds a part of it.
	Synced bool
	// Digest names the versions that the store holds: resource=version, sorted.
	// An object at or below its resource's version is in the store.
	Digest     string
	Watches    []Watch // by resource
	Rejections []policy.Rejection
	Notes      []string
}

// Watch is the state of one resource.
type Watch struct {
	Resource string
	Synced   bool // its objects were known in full once
	Healthy  bool // it is being followed now
	// Current is when the store was last known to be in step with the resource:
	// now, if Healthy; the zero Time if never.
	Current time.Time
	Heard   time.Time // when the server last said something
	Version string    // of the resource, as far as it was followed
	Objects int
	Err     string // why it is not healthy
}

// State describes what is known at this moment.
func (s *Source) State() State {
	var out State
	var digest []string
	for _, f := range s.allFeeds() {
		w := f.state()
		out.Watches = append(out.Watches, w)
		digest = append(digest, w.Resource+"="+w.Version)
		switch {
		case w.Err != "" && !w.Synced:
			out.Notes = append(out.Notes, fmt.Sprintf("%s: not known yet: %s", w.Resource, w.Err))
		case !w.Healthy && w.Err != "":
			out.Notes = append(out.Notes, fmt.Sprintf("%s: as of %s: %s", w.Resource, w.Current.Format(time.RFC3339), w.Err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Synced, out.Rejections = s.synced, s.rejectionsLocked()
	for _, topic := range slices.Sorted(maps.Keys(s.notes)) {
		out.Notes = append(out.Notes, topic+": "+s.notes[topic])
	}
	out.Digest = strings.Join(digest, " ")
	return out
}

// Whence returns what a policy that the store holds was read from: the API's
// group and version, and the object's version.
func (s *Source) Whence(o policy.Origin) (source, version string) {
	for _, f := range s.allFeeds() {
		if f.kind != o.Kind {
			continue
		}
		f.mu.Lock()
		version = f.known[store.Key{Namespace: o.Namespace, Name: o.Name}]
		f.mu.Unlock()
		if version != "" {
			return f.apiVersion, version
		}
	}
	return "", ""
}

// Server returns the address of the API server.
func (s *Source) Server() string { return s.rest.Host }

func (f *feed) state() Watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := Watch{Resource: f.resource, Synced: f.synced, Healthy: f.synced && f.open > 0, Heard: f.heard, Version: f.version, Objects: len(f.owned)}
	switch {
	case w.Healthy:
		w.Current = time.Now()
	case f.synced:
		w.Current = f.since
	}
	if f.err != nil {
		w.Err = f.err.Error()
	}
	return w
}

// note sets, or with an empty text removes, a note on a topic.
func (s *Source) note(topic, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == "" {
		delete(s.notes, topic)
		return
	}
	s.notes[topic] = text
}

// verdict is what is to be said about an object.
type verdict struct {
	apiVersion string
	apiKind    string
	resource   string
	name       string
	whole      bool             // the object as a whole is not valid
	current    metav1.Condition // that the object has
	uid        types.UID
	version    string
	generation int64
	rejections []policy.Rejection
}

// judge remembers what of an object doesn't hold, and has it reported.
func (s *Source) judge(f *feed, it *item, effect string) {
	o := it.object.Origin
	p, isPolicy := it.object.Value.(*policy.Policy)
	v := verdict{apiVersion: f.apiVersion, apiKind: f.apiKind, resource: f.resource, name: it.name, uid: it.uid, version: it.version,
		generation: it.generation, whole: it.object.Illegible || isPolicy && p.Rejected, current: it.condition}
	for _, r := range it.object.Rejections {
		r.Source = f.apiVersion + " " + it.version
		r.Effect += effect
		v.rejections = append(v.rejections, r)
	}
	s.mu.Lock()
	_, had := s.rejected[o]
	if len(v.rejections) > 0 {
		s.rejected[o], s.rejections = v, nil
	} else if had {
		delete(s.rejected, o)
		s.rejections = nil
	}
	s.mu.Unlock()
	if s.reporter != nil && (isPolicy || it.object.Illegible) {
		s.reporter.tell(o, v)
	}
}

// forget drops what was said about an object that has gone.
func (s *Source) forget(o policy.Origin) {
	s.mu.Lock()
	if _, had := s.rejected[o]; had {
		delete(s.rejected, o)
		s.rejections = nil
	}
	s.mu.Unlock()
	if s.reporter != nil {
		s.reporter.forget(o)
	}
}

func (s *Source) rejectionsLocked() []policy.Rejection {
	if s.rejections == nil && len(s.rejected) > 0 {
		for _, o := range slices.SortedFunc(maps.Keys(s.rejected), policy.Origin.Compare) {
			s.rejections = append(s.rejections, s.rejected[o].rejections...)
		}
	}
	return s.rejections
}
