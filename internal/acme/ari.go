package acme

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// An ari is what an authority says about when to renew a certificate (RFC 9773).
type ari struct {
	start, end time.Time // of the window; zero: it does not say
	next       time.Time // when to ask again
	acted      time.Time // when a renewal came of it
}

// errNoARI says that an authority does not say when to renew.
var errNoARI = errors.New("the authority has no renewal information")

// How often an authority is asked (RFC 9773, section 4.3.2).
const (
	minARI     = time.Minute
	maxARI     = 24 * time.Hour
	defaultARI = 6 * time.Hour
)

// renewalInfo asks the authority when leaf is to be renewed, and when to ask again.
func (a *authority) renewalInfo(ctx context.Context, leaf *x509.Certificate) (start, end time.Time, again time.Duration, err error) {
	s, err := a.directoryNow(ctx)
	if err != nil {
		return start, end, 0, err
	}
	if s.directory.renewalInfo == "" || len(leaf.AuthorityKeyId) == 0 {
		return start, end, maxARI, errNoARI
	}
	id, err := acme.ARIUniqueIdentifier(leaf)
	if err != nil {
		return start, end, maxARI, err
	}
	resp, body, err := s.get(ctx, s.directory.renewalInfo+"/"+id)
	if err != nil {
		return start, end, 0, err
	}
	again = defaultARI
	if wait := retryAfter(resp.Header); wait > 0 {
		again = min(max(wait, minARI), maxARI)
	}
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return start, end, again, fmt.Errorf("renewal information: %w", err)
	}
	start, end = info.SuggestedWindow.Start, info.SuggestedWindow.End
	if start.IsZero() || !end.After(start) {
		return time.Time{}, time.Time{}, again, errors.New("renewal information: the window is none")
	}
	return start, end, again, nil
}

// get fetches url with a plain GET.
func (s session) get(ctx context.Context, url string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("User-Agent", userAgent) // RFC 8555, section 6.1
	resp, err := s.http.Do(r)
	if err != nil {
		return nil, nil, plain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, plain(fmt.Errorf("get %s: %w", url, err))
	}
	if resp.StatusCode != http.StatusOK {
		var p acme.Problem
		if json.Unmarshal(body, &p) == nil && p.Type != "" {
			return nil, nil, plain(p)
		}
		return nil, nil, fmt.Errorf("get %s: %s", url, clean(resp.Status))
	}
	return resp, body, nil
}

// due returns when leaf is to be renewed: at a moment of the authority's window that is
// ours, or of our own choosing. An authority cannot let a certificate run out, and
// not have one after the other in quick succession.
func (i ari) due(leaf *x509.Certificate, urgent time.Duration) time.Time {
	if i.start.IsZero() {
		return third(leaf)
	}
	due := i.start.Add(time.Duration(fraction(leaf) * float64(i.end.Sub(i.start))))
	if !i.acted.IsZero() && due.Before(i.acted.Add(urgent)) {
		due = i.acted.Add(urgent)
	}
	if last := latest(leaf); due.After(last) {
		due = last
	}
	return due
}

// early tells whether it is the authority that wants leaf to be renewed by now.
func (i ari) early(leaf *x509.Certificate, now time.Time) bool {
	return !i.start.IsZero() && now.Before(third(leaf))
}
