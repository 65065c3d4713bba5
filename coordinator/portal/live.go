package portal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"sync"
	"time"

	"postern"
	"postern/coordinator"
)

// A view makes what the template "live" of a page shows u. q is the query of the
// page, or of the stream that keeps it up to date.
type view func(p *Portal, r *http.Request, u coordinator.User, q url.Values) (any, error)

// views are the pages with a part that is kept up to date.
var views = map[string]view{
	"catalogue": (*Portal).viewCatalogue,
	"open":      (*Portal).viewOpen,
	"nodes":     (*Portal).viewNodes,
	"routes":    (*Portal).viewRoutes,
	"route":     (*Portal).viewRoute,
}

// A live is a page's part that is kept up to date, and from where.
type live struct {
	HTML template.HTML
	URL  string
}

// renderLive is render for the page called name, one of views.
func (p *Portal) renderLive(w http.ResponseWriter, r *http.Request, status int, name string, u coordinator.User, q url.Values) {
	part, err := p.newLive(r, name, u, q)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.render(w, r, status, name, part)
}

// newLive returns the live part of the page called name, one of views.
func (p *Portal) newLive(r *http.Request, name string, u coordinator.User, q url.Values) (live, error) {
	html, err := p.renderView(r, name, u, q)
	if err != nil {
		return live{}, err
	}
	at := url.Values{}
	for key, values := range q {
		at[key] = values
	}
	at.Set("view", name)
	at.Set("seen", versionOf(html))
	return live{template.HTML(html), "/events?" + at.Encode()}, nil
}

func (p *Portal) renderView(r *http.Request, name string, u coordinator.User, q url.Values) ([]byte, error) {
	data, err := views[name](p, r, u, q)
	if err != nil {
		return nil, err
	}
	return p.pages.execute(name, "live", data)
}

// Times of a stream of updates.
const (
	streamBeat  = 15 * time.Second       // so that both ends notice that the other is gone
	streamPause = 300 * time.Millisecond // between updates, however much changes
	streamWrite = 10 * time.Second       // for one update to be taken
)

// events sends the live part of a page whenever it changed (server-sent events,
// WHATWG HTML, section 9.2). It ends with the session.
func (p *Portal) events(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	q := r.URL.Query()
	name, seen := q.Get("view"), q.Get("seen")
	if views[name] == nil {
		p.nothingHere(w, r)
		return
	}
	leave, ok := p.streams.enter(u.ID)
	if !ok {
		p.refuse(w, r, postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
			"too many pages are open at the same time", "close some of them"))
		return
	}
	defer leave()
	changed := p.c.Changed() // before looking, so that nothing is missed
	message, err := p.update(r, s, u, name, q, &seen)
	if err != nil && !errors.Is(err, errSessionEnded) {
		p.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	say := newVoice(w)
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	for {
		switch {
		case errors.Is(err, errSessionEnded):
			say("event: ended\ndata:\n\n")
			return
		case err != nil:
			p.log.Debug("page not kept up to date", "page", name, "err", err)
			return
		case say(cmp.Or(message, ":\n\n")) != nil:
			return
		}
		select {
		case <-changed:
			if !pause(r.Context(), streamPause) {
				return
			}
		case <-beat.C:
		case <-p.streams.ended:
			return
		case <-r.Context().Done():
			return
		}
		changed = p.c.Changed()
		message, err = p.update(r, s, u, name, q, &seen)
	}
}

// newVoice returns what sends one message of a stream over w.
func newVoice(w http.ResponseWriter) func(message string) error {
	control := http.NewResponseController(w)
	control.SetReadDeadline(time.Time{}) // the request was read; HTTP/1.1 would end the stream on it
	return func(message string) error {
		control.SetWriteDeadline(time.Now().Add(streamWrite))
		defer control.SetWriteDeadline(time.Time{}) // HTTP/2 would end a stream that is only silent
		if _, err := w.Write([]byte(message)); err != nil {
			return err
		}
		return control.Flush()
	}
}

var errSessionEnded = errors.New("the session has ended")

// update returns the message that brings a page up to date which has seen that
// version of its live part, "" if it is.
func (p *Portal) update(r *http.Request, s coordinator.Session, u coordinator.User, name string, q url.Values, seen *string) (string, error) {
	if _, _, err := p.c.SessionByID(r.Context(), s.ID); errors.Is(err, coordinator.ErrNotFound) {
		return "", errSessionEnded
	} else if err != nil {
		return "", err
	}
	html, err := p.renderView(r, name, u, q)
	if err != nil {
		return "", err
	}
	version := versionOf(html)
	if version == *seen {
		return "", nil
	}
	*seen = version
	var message bytes.Buffer
	for line := range bytes.Lines(html) {
		fmt.Fprintf(&message, "data: %s\n", bytes.TrimRight(line, "\r\n"))
	}
	message.WriteByte('\n')
	return message.String(), nil
}

// pause waits for d; it is cut short, and false, when ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Limits of pages that are kept up to date at the same time.
const (
	maxUserStreams = 12
	maxStreams     = 4096
)

// streams counts who is kept up to date.
type streams struct {
	ended chan struct{}
	end   func()

	mu    sync.Mutex
	total int
	of    map[string]int // by user
}

func newStreams() *streams {
	ended := make(chan struct{})
	return &streams{ended: ended, end: sync.OnceFunc(func() { close(ended) }), of: make(map[string]int)}
}

// enter counts one more of user, until leave is called.
func (s *streams) enter(user string) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= maxStreams || s.of[user] >= maxUserStreams {
		return nil, false
	}
	s.total++
	s.of[user]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total--
		if s.of[user]--; s.of[user] == 0 {
			delete(s.of, user)
		}
	}, true
}
