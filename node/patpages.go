package node

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"postern"
)

// maxForm bounds what people send to the node's own pages, in bytes.
const maxForm = 64 << 10

var (
	tooLong = page{
		status: http.StatusRequestEntityTooLarge, code: postern.CodeInvalid,
		title: "That is too much", text: "What was sent is longer than anything that this page asks for.",
	}
	badForm = page{
		status: http.StatusBadRequest, code: postern.CodeInvalid,
		title: "This cannot be read", text: "What was sent is not what this page asks for.",
	}
	notKept = page{
		status: http.StatusInternalServerError, code: postern.CodeInternal,
		title: "That could not be kept", text: "This machine could not write to its disk, so nothing was changed. Whoever looks after it finds more in its log.",
	}
)

// tokensView is what the page of tokens shows.
type tokensView struct {
	frame
	Who    string
	Pinned bool   // whether a pinned issuer vouches for them
	Wrong  string // with what was asked for; empty: nothing
	Secret string // of the token that was made; empty: none was
	Tokens []tokenRow

	// What the form is filled in with.
	Name, Scope string
	Days        int
	Lives       []int
}

// A tokenRow is a token, for people to read.
type tokenRow struct {
	pat
	May     string
	Expired bool
}

// showTokens answers with v's tokens, as view says besides.
func (p *proofs) showTokens(w http.ResponseWriter, r *http.Request, v visitor, status int, view tokensView) {
	now := p.gate.now()
	about := page{}.of(v.service).by(v.person)
	view.frame, view.Who = frameOf(r, "Tokens for programs", about.service), about.who
	view.Pinned, view.Lives = v.issuer() != "", patLives
	if view.Days == 0 {
		view.Days = patLives[1]
	}
	for _, t := range p.tokens.list(v.host, v.issuer(), v.person.ID, now) {
		row := tokenRow{pat: t, May: "May read", Expired: !now.Before(t.Expires)}
		if t.Scope == patWrite {
			row.May = "May read and change"
		}
		view.Tokens = append(view.Tokens, row)
	}
	render(w, status, "tokens.html", allowForms, view)
}

func (p *proofs) tokenPage(w http.ResponseWriter, r *http.Request) {
	if v, ok := p.visitor(w, r); ok {
		p.showTokens(w, r, v, http.StatusOK, tokensView{})
	}
}

// createToken makes a token, and shows its secret, once.
func (p *proofs) createToken(w http.ResponseWriter, r *http.Request) {
	v, ok := p.visitor(w, r)
	if !ok || !readForm(w, r) {
		return
	}
	days, err := strconv.Atoi(r.PostForm.Get("days"))
	if err != nil {
		days = 0
	}
	q := patRequest{
		Host: v.host, Owner: *v.person, Proof: v.session.Proof, Secret: newPATSecret(),
		Name: r.PostForm.Get("name"), Scope: r.PostForm.Get("scope"), Days: days,
	}
	again := tokensView{Name: q.Name, Scope: q.Scope, Days: days}
	if again.Wrong = q.wrong(); again.Wrong != "" {
		p.showTokens(w, r, v, http.StatusUnprocessableEntity, again)
		return
	}
	t, err := p.tokens.create(q, p.gate.now())
	switch {
	case errors.Is(err, errPATLimit):
		again.Wrong = "There are too many tokens here. Revoke some that are of no use any more."
		p.showTokens(w, r, v, http.StatusConflict, again)
	case err != nil:
		p.gate.log.Error("keep a personal token", "err", err)
		writePage(w, r, notKept.of(v.service))
	default:
		p.gate.log.Info("personal token made", "server_name", v.host, "user", t.Owner, "token", t.ID, "until", t.Expires.Format(time.RFC3339))
		p.showTokens(w, r, v, http.StatusCreated, tokensView{Secret: q.Secret.text()})
	}
}

// revokeToken ends one of the visitor's tokens, and with it what it has under way.
func (p *proofs) revokeToken(w http.ResponseWriter, r *http.Request) {
	v, ok := p.visitor(w, r)
	if !ok || !readForm(w, r) {
		return
	}
	id := r.PostForm.Get("id")
	err := p.tokens.revoke(v.host, v.issuer(), v.person.ID, id)
	if err != nil && !errors.Is(err, errPATAbsent) {
		p.gate.log.Error("revoke a personal token", "err", err)
		writePage(w, r, notKept.of(v.service))
		return
	}
	if err == nil {
		p.gate.log.Info("personal token revoked", "server_name", v.host, "user", v.person.ID, "token", id)
		p.gate.recheck()
	}
	redirect(w, pathTokens) // also if it was gone already: that is what was wanted
}

// readForm fills r.PostForm, or answers and reports false.
func readForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	var long *http.MaxBytesError
	switch err := r.ParseForm(); {
	case errors.As(err, &long):
		writePage(w, r, tooLong)
	case err != nil || r.PostForm == nil:
		writePage(w, r, badForm)
	default:
		return true
	}
	return false
}
