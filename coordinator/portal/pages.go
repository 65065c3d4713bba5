package portal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// pages are the templates of whole pages, by name: templates/layout.html and
// parts.html, and one other file each, which defines "title" and "main". Where it
// defines "frame" as card, the page is for who need not be signed in.
type pages map[string]*template.Template

// A page is what a page's templates are made from.
type page struct {
	Name     string // of the deployment
	Logo     string // path
	Path     string // of the page
	User     *coordinator.User
	Operates bool   // the user operates a tenant or more
	Notice   string // what was done
	Data     any
}

func parsePages() (pages, error) {
	layout, err := template.New("layout.html").Funcs(functions).ParseFS(embedded, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	entries, err := embedded.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	all := pages{}
	for _, e := range entries {
		if e.Name() == "layout.html" || e.Name() == "parts.html" {
			continue
		}
		t, err := layout.Clone()
		if err != nil {
			return nil, err
		}
		if t, err = t.ParseFS(embedded, "templates/"+e.Name()); err != nil {
			return nil, err
		}
		all[strings.TrimSuffix(e.Name(), path.Ext(e.Name()))] = t
	}
	return all, nil
}

var functions = template.FuncMap{
	"file":     staticURL,
	"icon":     icon,
	"time":     timeElement,
	"date":     dateElement,
	"sentence": sentence,
	"hint":     hintOf,
	"initial":  initial,
	"join":     func(all []string) string { return strings.Join(all, ", ") },
	"plural":   plural,
	"state":    markOf,
	"pathWord": pathWord,
	"rtt":      rttWord,
	"finding":  findingMark,
	"held":     certificateMark,
	"routeAt":  routePath,
	"agent":    agentName,
	"roles":    func() []string { return postern.TenantRoles },

	"minPassword": func() int { return coordinator.MinPassword },
	"maxPassword": func() int { return coordinator.MaxPassword },

	// Some parts take more than one value.
	"here":         newLink,
	"entryOf":      func(t tile, e entry) tileEntry { return tileEntry{t, e} },
	"roleField":    func(id, role string) roleField { return roleField{id, cmp.Or(role, postern.TenantMember)} },
	"tenantFilter": func(all []postern.Tenant, name string) tenantFilter { return tenantFilter{all, name} },
}

type tileEntry struct {
	Tile tile
	entry
}

type roleField struct{ ID, Role string }

type tenantFilter struct {
	Tenants []postern.Tenant
	Tenant  string
}

// A link is one of the pages in the navigation.
type link struct {
	URL, Word string
	Here      bool
}

func newLink(at, url, word string) link {
	return link{url, word, at == url || strings.HasPrefix(at, url+"/")}
}

// render answers with the page called name, made from data.
func (p *Portal) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	pg := page{Name: p.cfg.Name, Logo: "/logo?v=" + p.logo.version, Path: r.URL.Path, Data: data}
	if _, u, ok := p.session(r); ok {
		pg.User = &u
		if o, err := p.c.Operator(r.Context(), u.ID); err == nil {
			pg.Operates = o != nil
		}
	}
	if r.Method == http.MethodGet {
		pg.Notice = notices[r.URL.Query().Get("done")]
	}
	p.write(w, status, name, "layout.html", pg)
}

// write answers with what the template part of the page called name makes from
// data. That it cannot is a mistake of ours.
func (p *Portal) write(w http.ResponseWriter, status int, name, part string, data any) {
	body, err := p.pages.execute(name, part, data)
	if err != nil {
		p.log.Error("page not made", "page", name, "err", err)
		http.Error(w, "This page could not be made.", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Add("Vary", "Accept, HX-Request")
	w.WriteHeader(status)
	w.Write(body)
}

func (all pages) execute(name, part string, data any) ([]byte, error) {
	t := all[name]
	if t == nil {
		return nil, fmt.Errorf("there is no page %q", name)
	}
	var body bytes.Buffer
	err := t.ExecuteTemplate(&body, part, data)
	return body.Bytes(), err
}

// notices say what was done, by the word that stands in the address.
var notices = map[string]string{
	"out":        "You are signed out.",
	"everywhere": "You are signed out everywhere.",
	"name":       "Your name was changed.",
	"password":   "Your password was set. All your other sessions have ended.",
	"sure":       "You confirmed that it is you. For five minutes you can change how you sign in.",
	"passkey":    "The passkey was added. You can sign in with it from now on.",
	"unkeyed":    "The passkey was removed.",
	"session":    "The session has ended.",
	"granted":    "The rights were changed. They are in force now.",
	"waiting":    "The rights were changed. They have not accepted their invitation yet; its link is still good.",
	"revoked":    "The rights were taken away.",
	"disabled":   "The account is disabled. All its sessions have ended.",
	"enabled":    "The account can sign in again.",
	"person":     "The person was removed.",
	"company":    "The company was added. Its first machine joins with a token.",
	"node":       "The node was removed.",
	"gateway":    "The gateway was removed.",
	"route":      "The name was added. Nothing is served there until its DNS shows that it is yours.",
	"unrouted":   "The route was removed.",
	"untoken":    "The token was revoked.",
}

// A complaint is what a page says that somebody was refused with.
type complaint struct {
	*postern.Problem
	Heading string
}

// headings put a problem's code in words for people.
var headings = map[string]string{
	postern.CodeInvalid:      "That did not work",
	postern.CodeUnauthorized: "Please sign in",
	postern.CodeForbidden:    "This is not open to you",
	postern.CodeNotFound:     "There is nothing here",
	postern.CodeTooMany:      "Please wait a moment",
	postern.CodeUnavailable:  "Not possible right now",
	postern.CodeInternal:     "Something went wrong here",
	postern.CodeTokenUsed:    "This link is no longer good",
	postern.CodeTokenExpired: "This link has expired",
	postern.CodeTokenRevoked: "This link is no longer good",
}

// hints say what to do about a problem that says nothing of it itself, to people who
// have a browser and nothing else.
var hints = map[string]string{
	postern.CodeInvalid:      "change it and try again",
	postern.CodeUnauthorized: "sign in and try again",
	postern.CodeForbidden:    "ask whoever manages it",
	postern.CodeNotFound:     "it may have been removed a moment ago; load the page again, or begin at your start page",
	postern.CodeTaken:        "choose another name",
	postern.CodeTooMany:      "wait a minute and try again",
	postern.CodeUnavailable:  "try again in a minute; if it goes on, tell whoever operates this portal",
	postern.CodeInternal:     "try again in a minute; if it goes on, tell whoever operates this portal, whose log says why",
}

func hintOf(p *postern.Problem) string { return cmp.Or(p.Hint, hints[p.Code]) }

// refuse answers with a page that says what is wrong and what to do, or, where
// JSON is asked for, with problem itself.
func (p *Portal) refuse(w http.ResponseWriter, r *http.Request, problem *postern.Problem) {
	if problem.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "60")
	}
	challenge(w, problem.Status)
	problem = postern.NewProblem(problem.Status, problem.Code, problem.Detail, hintOf(problem))
	c := complaint{problem, headings[problem.Code]}
	if c.Heading == "" {
		c.Heading = "That did not work"
	}
	switch {
	case fromScript(r):
		// In place of what the script wanted to change, the page's own line says it.
		w.Header().Set("HX-Retarget", "#notice")
		w.Header().Set("HX-Reswap", "innerHTML")
		p.write(w, problem.Status, "problem", "complaint", problem)
	case accept.HTML(r):
		p.render(w, r, problem.Status, "problem", c)
	default:
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(problem.Status)
		json.NewEncoder(w).Encode(problem) // the reader's trouble if it fails
	}
}

// challenge sets what an answer with that status has to say of how to sign in (RFC 9110,
// section 11.6.1: a MUST). Browsers do nothing of their own about this scheme.
func challenge(w http.ResponseWriter, status int) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
}

// fail is refuse for any error.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, err error) {
	p.refuse(w, r, p.c.Problem(r.Context(), err))
}

// problemIn returns the Problem in err that a form can show next to what was
// filled in, nil if err is of another kind.
func problemIn(err error) *postern.Problem {
	var problem *postern.Problem
	if errors.As(err, &problem) && problem.Status < http.StatusInternalServerError {
		return problem
	}
	return nil
}

// goOn sends a browser that sent a form to next, a path of the portal. Where that
// may redirect to another site it gets a page that takes it there, as Chromium
// holds redirects after a form to the page's form-action (CSP3, section 6.4.1).
func (p *Portal) goOn(w http.ResponseWriter, r *http.Request, next string) {
	at, _, _ := strings.Cut(next, "?")
	if at == "/" || at == "/account" || strings.HasPrefix(at, "/admin/") {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	p.render(w, r, http.StatusOK, "onward", next)
}

// done goes on to a page of ours that says what was done, a word of notices.
func (p *Portal) done(w http.ResponseWriter, r *http.Request, at, what string) {
	http.Redirect(w, r, at+"?done="+what, http.StatusSeeOther)
}

// pathWord returns what carries a tunnel, "" if that is not known.
func pathWord(carrier string) string {
	return map[string]string{postern.CarrierUDP: "UDP", postern.CarrierRelay: "TLS on port 443"}[carrier]
}

// rttWord returns how long an answer took.
func rttWord(d postern.Duration) string {
	if ms := time.Duration(d).Round(time.Millisecond).Milliseconds(); ms > 0 {
		return fmt.Sprintf("%d ms", ms)
	}
	return "less than 1 ms"
}

// sentence makes a detail or hint, which starts small and has no stop, a sentence.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(s)
	s = string(unicode.ToUpper(first)) + s[size:]
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, "?") || strings.HasSuffix(s, "!") {
		return s
	}
	return s + "."
}

// initial returns the first letter of what somebody is called.
func initial(s string) string {
	for _, r := range s {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return string(unicode.ToUpper(r))
		}
	}
	return "?"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// timeElement returns t as an element that scripts turn into words such as "3
// minutes ago"; without them it is in UTC. It does not depend on what time it is,
// so that a page that did not change is the same.
func timeElement(t time.Time) template.HTML { return timeHTML(t, "") }

// dateElement is timeElement, but scripts leave it a date, in the reader's time.
func dateElement(t time.Time) template.HTML { return timeHTML(t, " data-date") }

func timeHTML(t time.Time, attribute string) template.HTML {
	if t.IsZero() {
		return "never"
	}
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s"%s>%s</time>`, t.Format(time.RFC3339), attribute, t.Format("2 Jan 2006, 15:04 UTC")))
}

// agentName returns a User-Agent header as people call it, in words of ours alone: a
// stranger's would stand where somebody decides whether to let them in.
func agentName(agent string) string {
	name := firstOf(agent, []string{"Edg", "Edge", "OPR", "Opera", "Firefox", "Firefox", "FxiOS", "Firefox", "CriOS", "Chrome", "Chrome", "Chrome", "Safari", "Safari", "curl", "curl", "postern", "Postern"})
	system := firstOf(agent, []string{"iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows", "Mac OS", "macOS", "CrOS", "ChromeOS", "Linux", "Linux"})
	switch {
	case name != "" && system != "":
		return name + " on " + system
	case name != "" || system != "":
		return name + system
	}
	return "An unknown program"
}

// firstOf returns the name behind the first mark in pairs that s has.
func firstOf(s string, pairs []string) string {
	for i := 0; i < len(pairs); i += 2 {
		if strings.Contains(s, pairs[i]) {
			return pairs[i+1]
		}
	}
	return ""
}
