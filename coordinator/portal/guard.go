package portal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"postern"
	"postern/coordinator"
)

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// contentPolicy lets pages have what the portal itself serves as files, and
// nothing written into them.
//
// Chromium holds the redirects that follow a form to form-action, too: a form
// must not lead to a node or an issuer, see goOn.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// permissionsPolicy switches off what no page of ours asks for.
const permissionsPolicy = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), " +
	"microphone=(), midi=(), payment=(), serial=(), usb=(), " +
	"publickey-credentials-get=(self), publickey-credentials-create=(self), clipboard-write=(self)"

// guard is what stands before all pages: headers, bounds and limits, and no
// requests that other sites' pages make, siblings' included.
func (p *Portal) guard(next http.Handler) http.Handler {
	foreign := http.NewCrossOriginProtection()
	foreign.SetDenyHandler(http.HandlerFunc(p.refuseForeign))
	inner := foreign.Handler(p.limit(p.readForm(next)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", permissionsPolicy)
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		if r.Body != nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		inner.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, new(visit))))
	})
}

// limit bounds how often a source changes anything.
func (p *Portal) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !p.c.AllowPost(remoteOf(r)) {
			if p.floods.allow(coordinator.SourceOf(remoteOf(r)).String(), p.cfg.Now()) {
				p.noteStranger(r, "request.refused", shownPath(r), "too much was asked in a short time")
			}
			p.refuse(w, r, postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
				"too much was asked from your address in a short time", "wait a minute and try again"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readForm reads the form in a request's body, so that no handler works with half
// of one.
func (p *Portal) readForm(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := r.ParseForm()
		var tooLong *http.MaxBytesError
		switch {
		case err == nil:
			next.ServeHTTP(w, r)
		case errors.As(err, &tooLong):
			p.fail(w, r, err)
		default:
			p.refuse(w, r, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid,
				"what was sent is not well-formed", "load the page again and try once more"))
		}
	})
}

func (p *Portal) refuseForeign(w http.ResponseWriter, r *http.Request) {
	p.noteStranger(r, "request.refused", shownPath(r), fmt.Sprintf("sent by a page of another site: %q", r.Header.Get("Origin")))
	p.refuse(w, r, postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
		"this was sent by a page of another site; nothing was done", "if you meant to do it, do it on a page of this site"))
}

// shownPath returns r's path without the secret that the link of an invitation has: it is
// good still, and what is written of r is for others to read.
func shownPath(r *http.Request) string {
	if strings.HasPrefix(r.URL.Path, "/invite/") {
		return "/invite/…"
	}
	return r.URL.Path
}

// remoteOf returns the address that r came from, the zero one if it is unknown.
func remoteOf(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return a.Addr().Unmap()
}

// fromScript reports whether a script of our pages asks, and not the browser itself.
func fromScript(r *http.Request) bool { return r.Header.Get("HX-Request") == "true" }
