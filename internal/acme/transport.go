package acme

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// maxAnswer is how much of an authority's answer is read: far more than any chain.
const maxAnswer = 1 << 20

// A transport carries one authority's requests, and covers what the client over it
// leaves open: it bounds answers, insists on https, and notes what an authority asks
// us to wait.
//
// It also answers for the directory. The client fetches that under a lock of all
// clients, where an authority that hangs would hold up every other, and keeps it for
// half a day; so the authority fetches it, and the client gets it from here.
type transport struct {
	base      *http.Transport
	directory atomic.Pointer[directory]
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not https", r.URL)
	}
	if d := t.directory.Load(); d != nil && r.URL.Fragment == d.tag {
		return &http.Response{
			StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {"application/json"}},
			Body:   io.NopCloser(bytes.NewReader(d.text)),
		}, nil
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	if n, ok := r.Context().Value(noteKey{}).(*note); ok {
		n.wait = 0
		if resp.StatusCode >= 400 {
			n.wait = retryAfter(resp.Header)
		}
	}
	return resp, nil
}

// CloseIdleConnections lets an http.Client close t's.
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// A note is what an authority's last answer says beside its problem document. One
// goroutine uses it.
type note struct{ wait time.Duration }

type noteKey struct{}

func withNote(ctx context.Context) (context.Context, *note) {
	n := new(note)
	return context.WithValue(ctx, noteKey{}, n), n
}

// retryAfter returns how long h asks to wait (RFC 9110, section 10.2.3), zero if it
// does not. A date is held against the sender's own clock.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	until, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		now = time.Now()
	}
	return max(until.Sub(now), 0)
}
