package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"postern"
	"postern/internal/accept"
)

var (
	noPortal = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable, retryAfter: 30,
		title: "Nobody can sign in yet",
		text:  "This address is for people who have signed in, and it has not been told yet where they do.",
		link:  linkWorks,
	}
	signInFirst = page{
		status: http.StatusUnauthorized, code: postern.CodeUnauthorized,
		title: "Sign in first",
		text:  "This address is for people who have signed in. What was sent has not been passed on.",
	}
	notAllowed = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "Not for you",
		text:  "You are signed in, and what is behind this address has not been opened to you. Who manages the people of your company can change that.",
	}
	proveFirst = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "One more step",
		text:  "What is behind this address wants more than signing in at the portal. Open it in the browser's address bar.",
	}
	notSticking = page{
		status: http.StatusForbidden, code: postern.CodeUnauthorized,
		title: "Signing in does not last",
		text: "You signed in, and came back without it. The browser may refuse cookies for this address, or several " +
			"machines may take turns in answering for it.",
	}
)

// turnAway answers a request that did not pass, by the person p, if somebody is
// signed in.
func (g *gate) turnAway(w http.ResponseWriter, r *http.Request, host string, svc *service, v verdict, p *postern.Person) {
	if svc == nil {
		writePage(w, r, notPublished)
		return
	}
	t := g.table()
	switch v {
	case nobody:
		if presentedOf(r).token {
			g.refuseBearer(w, r, host, &bearerError{code: bearerToken, detail: "The token's owner has been signed out, or may not open this any more."})
			return
		}
		g.askToSignIn(w, r, t, host, svc)
	case unproven:
		if g.ways.prove != nil && navigates(r) {
			g.ways.prove(w, r, svc.Require, deepLink(r))
			return
		}
		if presentedOf(r).token {
			challenge(w, host, bearerScope, proveFirst.text)
		}
		writePage(w, r, proveFirst.of(svc).by(p))
	case forbidden:
		if presentedOf(r).token {
			challenge(w, host, bearerScope, "The token's owner may not open this.")
		}
		writePage(w, r, notAllowed.of(svc).by(p).withPortal(t.portal))
	}
}

// askToSignIn answers a request by nobody: it sends navigations to sign in, and tells
// programs how they would get through (RFC 6750, section 3).
func (g *gate) askToSignIn(w http.ResponseWriter, r *http.Request, t *table, host string, svc *service) {
	pinned := svc.Require == postern.RequireIssuer && g.ways.prove != nil
	switch {
	case t.portal == nil && !pinned:
		writePage(w, r, noPortal.of(svc))
	case !navigates(r):
		challenge(w, host, "", "")
		p := signInFirst.of(svc).withPortal(t.portal)
		if r.Method == http.MethodGet {
			p.actions = append([]action{{"Sign in", deepLink(r)}}, p.actions...)
		}
		writePage(w, r, p)
	case rounds(r) >= maxRounds:
		setCookie(w, cookieRounds, "", -1)
		p := notSticking.of(svc)
		p.actions = []action{{"Try again", deepLink(r)}}
		writePage(w, r, p)
	case pinned:
		g.ways.prove(w, r, svc.Require, deepLink(r))
	default:
		g.beginSignIn(w, r, g.atPortal(t), deepLink(r), 0)
	}
}

// refuseBearer answers a request whose bearer token gets it nowhere.
func (g *gate) refuseBearer(w http.ResponseWriter, r *http.Request, host string, refused *bearerError) {
	g.log.Log(r.Context(), g.refusal(r, slog.LevelInfo), "bearer token refused", "server_name", host, "id", r.Header.Get(headerRequestID), "err", refused)
	challenge(w, host, refused.code, refused.detail)
	p := page{status: http.StatusUnauthorized, code: postern.CodeUnauthorized, title: "The token is refused", text: refused.detail}
	switch refused.code {
	case bearerScope:
		p.status, p.code = http.StatusForbidden, postern.CodeForbidden
	case bearerRequest:
		p.status, p.code = http.StatusBadRequest, postern.CodeInvalid
	case bearerTooMany:
		p.status, p.code, p.retryAfter = http.StatusTooManyRequests, postern.CodeTooMany, 60
	}
	writePage(w, r, p)
}

// challenge says that bearer tokens are taken, and what is wrong with the one that
// came, if there is a code (RFC 6750, section 3).
func challenge(w http.ResponseWriter, host, code, detail string) {
	value := fmt.Sprintf("Bearer realm=%q", host)
	if code != "" {
		value += fmt.Sprintf(", error=%q, error_description=%q", code, strings.TrimSuffix(detail, "."))
	}
	w.Header().Set("WWW-Authenticate", value)
}

// navigates reports whether r fills a browser's tab, so that a redirect to sign in
// helps. Where a page asked for it, or a frame of one, it does not: the answer is
// lost, or shown where nobody signs in. What a browser fetches in advance asks nobody.
func navigates(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if strings.Contains(r.Header.Get("Sec-Purpose"), "prefetch") {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Mode") { // Fetch Metadata Request Headers
	case "":
		return accept.HTML(r)
	case "navigate":
		dest := r.Header.Get("Sec-Fetch-Dest")
		return dest == "document" || dest == ""
	}
	return false
}

// deepLink returns the path and query of r, to come back to. What is no path of this
// origin in a browser's eyes is left out.
func deepLink(r *http.Request) string {
	for _, link := range []string{r.URL.RequestURI(), r.URL.EscapedPath()} {
		if checkTarget(link) == nil {
			return link
		}
	}
	return "/"
}
