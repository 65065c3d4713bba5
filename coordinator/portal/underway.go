package portal

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postern/coordinator"
)

// Bounds of what is under way.
const (
	underWayLife   = 5 * time.Minute
	maxUnderWay    = 8192
	sourceUnderWay = 1024 // of them, from one source, see coordinator.SourceOf
)

// underWay keeps what a browser began and has to come back for, by an
// unpredictable key that went out with it. Each can be taken once, in time, by
// the browser that it belongs to. Beyond sourceUnderWay the oldest of the same source
// is forgotten, beyond maxUnderWay the oldest of all.
type underWay[T any] struct {
	now func() time.Time

	mu    sync.Mutex
	all   map[string]begun[T]
	order []string // its keys, by age
	of    map[netip.Prefix]int
}

type begun[T any] struct {
	what    T
	browser [32]byte // hash of its cookie
	source  netip.Prefix
	until   time.Time
}

func newUnderWay[T any](now func() time.Time) *underWay[T] {
	return &underWay[T]{now: now, all: make(map[string]begun[T]), of: make(map[netip.Prefix]int)}
}

// put keeps what a browser at remote began, in place of what has that key.
func (u *underWay[T]) put(key string, browser [32]byte, remote netip.Addr, what T) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now, source := u.now(), coordinator.SourceOf(remote)
	u.drop(key)
	for len(u.order) > 0 && (len(u.order) >= maxUnderWay || !now.Before(u.all[u.order[0]].until)) {
		u.drop(u.order[0])
	}
	if u.of[source] >= sourceUnderWay {
		i := slices.IndexFunc(u.order, func(key string) bool { return u.all[key].source == source })
		u.drop(u.order[i])
	}
	u.all[key] = begun[T]{what, browser, source, now.Add(underWayLife)}
	u.order = append(u.order, key)
	u.of[source]++
}

// drop forgets what is under key, if anything. The lock is held.
func (u *underWay[T]) drop(key string) {
	b, ok := u.all[key]
	if !ok {
		return
	}
	delete(u.all, key)
	i := slices.Index(u.order, key)
	u.order = slices.Delete(u.order, i, i+1)
	if u.of[b.source]--; u.of[b.source] == 0 {
		delete(u.of, b.source)
	}
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
	u.drop(key)
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
