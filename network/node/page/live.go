package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/loden-net/loden/network/node/history"
)

// The bounds of the stream. A browser that lost its stream connects again by itself.
const (
	MaxClients = 8                // streams at the same time
	Every      = 2 * time.Second  // between two reports, at least
	lifetime   = 10 * time.Minute // of a stream
	sendTime   = 10 * time.Second // for a client to take a report
	share      = 20               // a report takes at most a twentieth of the time between two reports
)

// Live streams reports and events to the pages that are open. Make it with NewLive. Reports
// are made while a page is open only, and all pages share them.
type Live struct {
	report func(context.Context) any
	events *history.Events
	places chan struct{} // an element for each client
	ended  chan struct{}
	end    func()

	mu    sync.Mutex // guards the fields below; held while a report is made
	last  []byte     // the newest report, as JSON
	until time.Time  // the end of its use
}

// NewLive returns a stream of what report returns, which is JSON's source, and of events.
func NewLive(report func(context.Context) any, events *history.Events) *Live {
	l := &Live{report: report, events: events, places: make(chan struct{}, MaxClients), ended: make(chan struct{})}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	return l
}

// End ends all streams, and refuses new streams. It may be called twice.
func (l *Live) End() { l.end() }

// newest returns the newest report as JSON, and when the next report is due.
func (l *Live) newest(ctx context.Context) ([]byte, time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if began := time.Now(); !began.Before(l.until) {
		data, err := json.Marshal(l.report(ctx))
		if err != nil {
			return nil, time.Time{}, err
		}
		l.last, l.until = data, began.Add(max(Every, share*time.Since(began)))
	}
	return l.last, l.until, nil
}

// ServeHTTP sends a stream of events (https://html.spec.whatwg.org/multipage/server-sent-events.html):
// "report" with the body of /status, and "event" with an element of /events. The stream ends
// with the client, after its lifetime, or at End.
func (l *Live) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case l.places <- struct{}{}:
		defer func() { <-l.places }()
	default:
		w.Header().Set("Retry-After", "30")
		http.Error(w, fmt.Sprintf("%d pages are open already: close one of them", MaxClients), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	ctx, cancel := context.WithTimeout(r.Context(), lifetime)
	defer cancel()
	s := stream{out: w, control: http.NewResponseController(w)}
	l.send(ctx, s)
}

// send writes reports and events until ctx ends, End is called, or the client goes away.
func (l *Live) send(ctx context.Context, s stream) {
	_, _ = fmt.Fprint(s.out, "retry: 2000\n\n")
	seen, due := uint64(0), time.Time{}
	for {
		events, changed := l.events.After(seen)
		for _, e := range events {
			data, err := json.Marshal(e)
			if err != nil || s.write("event", data) != nil {
				return
			}
			seen = e.Number
		}
		if !time.Now().Before(due) {
			data, next, err := l.newest(ctx)
			if err != nil || s.write("report", data) != nil {
				return
			}
			due = next
		}
		if s.flush() != nil || !l.wait(ctx, changed, time.Until(due)) {
			return
		}
	}
}

// wait waits for an event or for a time. It is false when the stream is to end.
func (l *Live) wait(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-l.ended:
		return false
	case <-changed:
	case <-timer.C:
	}
	return true
}

// stream is a connection to a page.
type stream struct {
	out     http.ResponseWriter
	control *http.ResponseController
}

// write writes an event. JSON has no line break, so an event is a single line of data.
func (s stream) write(name string, data []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "event: %s\ndata: %s\n\n", name, data)
	return err
}

func (s stream) flush() error { return s.control.Flush() }
