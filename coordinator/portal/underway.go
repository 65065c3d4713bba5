package portal

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

// Bounds of what is under way.
const (
	underWayLife = 5 * time.Minute
	maxUnderWay  = 8192
)

// underWay keeps what a browser began and has to come back for, by an
// unpredictable key that went out with it. Each can be taken once, in time, by
// the browser that it belongs to. Beyond maxUnderWay the oldest is forgotten.
type underWay[T any] struct {
	now func() time.Time

	mu    sync.Mutex
	all   map[string]begun[T]
	order []string // keys by age; those that were taken are skipped
}

type begun[T any] struct {
	what    T
	browser [32]byte // hash of its cookie
	until   time.Time
}

func newUnderWay[T any](now func() time.Time) *underWay[T] {
	return &underWay[T]{now: now, all: make(map[string]begun[T])}
}

func (u *underWay[T]) put(key string, browser [32]byte, what T) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	for len(u.order) > 0 {
		oldest, ok := u.all[u.order[0]]
		if ok && now.Before(oldest.until) && len(u.order) < maxUnderWay {
			break
		}
		delete(u.all, u.order[0])
		u.order = u.order[1:]
	}
	u.all[key] = begun[T]{what, browser, now.Add(underWayLife)}
	u.order = append(u.order, key)
}

// has reports whether something was put under key for browser, and leaves it there.
func (u *underWay[T]) has(key string, browser [32]byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	b, ok := u.all[key]
	return ok && b.browser == browser && u.now().Before(b.until)
}

// take returns what was put under key for browser, and forgets it.
func (u *underWay[T]) take(key string, browser [32]byte) (what T, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	b, ok := u.all[key]
	if !ok || b.browser != browser {
		// What another browser began is left to that one.
		return what, false
	}
	delete(u.all, key)
	return b.what, u.now().Before(b.until)
}

// browserCookie tells browsers apart that have something under way.
const browserCookie = "__Host-postern_browser"

// browserOf returns the hash of r's browser cookie; ok is false if there is none.
func browserOf(r *http.Request) (hash [32]byte, ok bool) {
	c, err := r.Cookie(browserCookie)
	if err != nil || len(c.Value) < 26 {
		return hash, false
	}
	return sha256.Sum256([]byte(c.Value)), true
}

// knowBrowser is browserOf, but gives r's browser a cookie if it has none.
func knowBrowser(w http.ResponseWriter, r *http.Request) [32]byte {
	if hash, ok := browserOf(r); ok {
		return hash
	}
	secret := rand.Text()
	http.SetCookie(w, hostCookie(browserCookie, secret, 0))
	return sha256.Sum256([]byte(secret))
}
