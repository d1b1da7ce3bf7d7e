package kube

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// stream is a watch whose objects are items. Its goroutine ends with the watch
// or when it is stopped.
type stream struct {
	feed *feed
	in   watch.Interface
	out  chan watch.Event
	quit chan struct{}
	once sync.Once
	// whole: all that there was has come. What comes now is newer, and the list that
	// the Reflector makes of the rest would undo it for a moment.
	whole bool
}

// ResultChan implements watch.Interface.
func (s *stream) ResultChan() <-chan watch.Event { return s.out }

// Stop implements watch.Interface.
func (s *stream) Stop() {
	s.once.Do(func() {
		close(s.quit)
		s.in.Stop()
	})
}

// watch opens a watch.
func (f *feed) watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
	in, err := f.watcher(ctx, opts)
	if err != nil {
		f.failed(ctx, err)
		return nil, err
	}
	// Of a connection that ends while the watch is being opened, client-go makes
	// a watch that has ended.
	var first []watch.Event
	select {
	case e, ok := <-in.ResultChan():
		if !ok {
			err := fmt.Errorf("open watch: %w", io.ErrUnexpectedEOF)
			f.failed(ctx, err)
			return nil, err
		}
		first = append(first, e)
	default:
	}
	s := &stream{feed: f, in: in, out: make(chan watch.Event, 64), quit: make(chan struct{})}
	f.opened()
	go func() {
		defer close(s.out)
		defer f.closed()
		defer in.Stop()
		for _, e := range first {
			s.out <- s.event(ctx, e)
		}
		for e := range in.ResultChan() {
			select {
			case s.out <- s.event(ctx, e):
			case <-s.quit:
				return
			}
		}
	}()
	return s, nil
}

// event converts what a watch says.
func (s *stream) event(ctx context.Context, e watch.Event) watch.Event {
	f := s.feed
	switch e.Type {
	case watch.Error:
		f.failed(ctx, errors.FromObject(e.Object))
	case watch.Bookmark:
		it := &item{Object: noMeta}
		if m, err := meta.Accessor(e.Object); err == nil {
			it.version, it.end = m.GetResourceVersion(), m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
		}
		s.whole = s.whole || it.end
		e.Object = it
	default:
		it := f.item(e.Object)
		if !s.whole && f.prompt != nil && e.Type != watch.Deleted && f.prompt(it) {
			f.early(it)
		}
		e.Object = it
	}
	return e
}

// opened notes that a watch stands.
func (f *feed) opened() {
	f.mu.Lock()
	err := f.err
	f.open++
	f.err, f.heard = nil, time.Now()
	f.mu.Unlock()
	if err != nil {
		f.src.log.Info("watch stands again", "resource", f.resource)
	}
}

// closed notes that a watch has ended.
func (f *feed) closed() {
	f.mu.Lock()
	f.open--
	if f.open == 0 {
		f.since = time.Now()
	}
	f.mu.Unlock()
}

// failed notes why there is no watch. The first of a row of failures is logged.
func (f *feed) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	first := f.err == nil
	f.err = err
	f.mu.Unlock()
	if first {
		f.src.log.Warn("follow resource", "resource", f.resource, "err", err)
	}
}
