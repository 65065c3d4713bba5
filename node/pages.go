package node

import (
	"bytes"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"postern"
	"postern/internal/accept"
)

// A page is what the node itself answers in place of an application. It says
// nothing about the inside: no address, no error text.
type page struct {
	status     int
	code       string // postern.CodeXxx
	title      string
	text       string // of one or more sentences
	link       string // what can be said of the way to here; empty: nothing
	retryAfter int    // seconds; zero: trying again is of no use
	service    string // title; empty: it has none
	hint       string // what to do, for programs; empty: nothing
	who        string // is signed in, and may sign out; empty: nobody
	actions    []action
}

// An action is a link on a page.
type action struct{ Label, Href string }

// of returns p for the service s.
func (p page) of(s *service) page {
	if s.Title != s.Name {
		p.service = s.Title
	}
	return p
}

// by returns p for the eyes of who is signed in; nil: nobody.
func (p page) by(who *postern.Person) page {
	if who == nil {
		return p
	}
	p.who = who.Login
	if who.Name != "" {
		p.who = who.Name + " (" + who.Login + ")"
	}
	return p
}

// begin returns p with a link to target, where a sign-in begins again.
func (p page) begin(target string) page {
	p.actions = append(slices.Clip(p.actions), action{"Sign in", target})
	return p
}

// withPortal returns p with a link to the portal; nil: there is none.
func (p page) withPortal(portal *portal) page {
	if portal == nil {
		return p
	}
	p.actions = append(slices.Clip(p.actions), action{"Go to " + portal.name(), portal.issuer + "/"})
	p.hint = "people sign in at " + portal.issuer
	return p
}

const linkWorks = "The connection to the office works."

var (
	notAnswering = page{
		status: http.StatusBadGateway, code: postern.CodeUnavailable, retryAfter: 10,
		title: "Not available right now",
		text:  "The application behind this address is not answering. It may be starting, or it may be switched off.",
		link:  linkWorks,
	}
	tooSlow = page{
		status: http.StatusGatewayTimeout, code: postern.CodeUnavailable, retryAfter: 30,
		title: "This takes too long",
		text:  "The application behind this address did not answer in time. It may be busy, or it may hang.",
		link:  linkWorks,
	}
	noFolder = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable, retryAfter: 30,
		title: "The files are not available",
		text:  "The files behind this address cannot be read at present.",
		link:  linkWorks,
	}
	notPublished = page{
		status: http.StatusNotFound, code: postern.CodeNotFound,
		title: "Nothing is published here",
		text:  "This address leads to the right place, but nothing is published under it any more.",
	}
	noFile = page{
		status: http.StatusNotFound, code: postern.CodeNotFound,
		title: "There is no such page",
		text:  "The address may be mistyped, or the page may have moved.",
	}
	noSuchResource = page{
		status: http.StatusNotFound, code: postern.CodeNotFound,
		title: "There is no such page",
		text:  "This part of the address belongs to the gateway software, which has nothing here.",
	}
	readOnly = page{
		status: http.StatusMethodNotAllowed, code: postern.CodeInvalid,
		title: "This can only be read",
		text:  "What is behind this address can be fetched, and not be changed.",
	}
	noTunnels = page{
		status: http.StatusMethodNotAllowed, code: postern.CodeInvalid,
		title: "This is not a proxy",
		text:  "Connections to elsewhere are not made here.",
	}
	misdirected = page{
		status: http.StatusMisdirectedRequest, code: postern.CodeInvalid,
		title: "Wrong connection",
		text:  "This request is for another address than the connection that it came over. Loading the page again helps.",
	}
)

//go:embed *.html style.css passkey.js
var pageFiles embed.FS

var pageTemplates = template.Must(template.ParseFS(pageFiles, "*.html", "style.css"))

// A frame is what is around everything that people read of the node's own.
type frame struct{ Title, Service, Host, ID string }

// frameOf returns the frame of what answers r, about the service of that title; empty:
// about none, or one that has no other title than its name.
func frameOf(r *http.Request, title, service string) frame {
	return frame{title, service, requestHost(r), r.Header.Get(headerRequestID)}
}

// render answers with the template called name. Allowed is what it needs of a policy
// that allows nothing.
func render(w http.ResponseWriter, status int, name, allowed string, data any) {
	var body bytes.Buffer
	if err := pageTemplates.ExecuteTemplate(&body, name, data); err != nil {
		panic("node: page template: " + err.Error())
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pageCSP+allowed)
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// pageCSP lets a page have its own style, and nothing else whatever but what is added
// to it: first of all the forms.
const (
	pageCSP    = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; form-action "
	allowNone  = "'none'"
	allowForms = "'self'"
	allowJS    = "'none'; script-src 'self'; connect-src 'self'"
)

// writePage answers r, which setForwarded has seen, with p: as HTML if the client asks for that, as a Problem
// otherwise.
func writePage(w http.ResponseWriter, r *http.Request, p page) {
	h := w.Header()
	h.Del("Content-Length")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	if !accept.HTML(r) {
		writeProblem(w, p)
		return
	}
	allowed := allowNone
	if p.who != "" {
		allowed = allowForms
	}
	render(w, p.status, "page.html", allowed, struct {
		frame
		Text, Link, Who string
		Actions         []action
	}{frameOf(r, p.title, p.service), p.text, p.link, p.who, p.actions})
}

func writeProblem(w http.ResponseWriter, p page) {
	detail := strings.TrimSpace(p.text + " " + p.link)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.status)
	json.NewEncoder(w).Encode(postern.NewProblem(p.status, p.code, detail, p.hint))
}
