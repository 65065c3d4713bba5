package node

import (
	"net/http"
	"strings"
	"time"
)

// Names of the node's own cookies. A name that begins with __Host- is taken by
// browsers only from the host itself, over HTTPS, for all of its paths (RFC 6265bis,
// section 4.1.3.2): no application at a sibling name can set one here.
const (
	cookieSession = cookiePrefix             // secret of a session
	cookieState   = cookiePrefix + "_state_" // and the id of a sign-in under way: what binds it to the browser
	cookieRounds  = cookiePrefix + "_rounds" // how many sign-ins succeeded just now

	cookiePrefix = "__Host-postern"
)

// setCookie has the browser keep value for as long as life lasts; if that is zero,
// until it is closed; if it is negative, no longer.
func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	age := int(life / time.Second)
	if life < 0 {
		age = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: age,
	})
}

// isOurCookie reports whether name begins as the names of the node's cookies do, in
// whatever letters: no application gets such a cookie, and none sets it.
func isOurCookie(name string) bool {
	return len(name) >= len(cookiePrefix) && strings.EqualFold(name[:len(cookiePrefix)], cookiePrefix)
}

// takeCookies removes the node's own cookies from h, and leaves the others as they
// are, byte by byte.
func takeCookies(h http.Header) {
	lines := h["Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		var rest []string
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(pair, "=")
			if !isOurCookie(strings.TrimSpace(name)) {
				rest = append(rest, pair)
			}
		}
		if line = strings.TrimLeft(strings.Join(rest, ";"), " "); line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		delete(h, "Cookie")
		return
	}
	h["Cookie"] = kept
}

// refuseCookies removes from an application's answer what would set a cookie of ours.
func refuseCookies(h http.Header) {
	lines := h["Set-Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		pair, _, _ := strings.Cut(line, ";")
		name, _, _ := strings.Cut(pair, "=")
		if !isOurCookie(strings.TrimSpace(name)) {
			kept = append(kept, line)
		}
	}
	if len(kept) < len(lines) {
		h["Set-Cookie"] = kept
	}
}
