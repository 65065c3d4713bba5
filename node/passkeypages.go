package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern"
)

// Using a passkey, for a service that requires one besides the portal's word, in order:
//
//	gate.turnAway          somebody signed in at the portal and has more to prove
//	proofs.passkeyPage     a page with a button, and passkey.js
//	proofs.passkeyOptions  a challenge for the passkeys that were made for that person
//	proofs.passkeyFinish   the session has a new secret, and goes on with the proof
//
// Making one, with a link that was made on this machine:
//
//	proofs.enrolPage, proofs.enrolOptions, proofs.enrolFinish
const (
	pathPasskey   = ownPath + "passkey"
	pathEnrol     = pathPasskey + "/enrol"
	pathPasskeyJS = ownPath + "passkey.js"
)

var (
	noPasskey = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "No passkey of yours is known here",
		text: "You are signed in, and what is behind this address wants a passkey besides that was made for it. Whoever looks after " +
			"the machine that answers here can send you a link to make one.",
	}
	badEnrol = page{
		status: http.StatusNotFound, code: postern.CodeNotFound,
		title: "This link is of no use any more",
		text: "A link to make a passkey is good once, for 72 hours, until another is made for the same person. Whoever looks after " +
			"the machine that answers here can make another.",
	}
	tooManyGuesses = page{
		status: http.StatusTooManyRequests, code: postern.CodeTooMany, retryAfter: 60,
		title: "Too many attempts", text: "Too many links or codes that are not good came from your address. Try again in a minute.",
	}
	crowded = page{
		status: http.StatusServiceUnavailable, code: postern.CodeUnavailable, retryAfter: 60,
		title: "Too much at once", text: "Too many people are using passkeys here at this moment. Try again in a minute.",
	}
	badPasskey = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "The passkey was not accepted", text: "What the browser sent does not prove that it has the passkey. Try again.",
	}
	clonedPasskey = page{
		status: http.StatusForbidden, code: postern.CodeForbidden,
		title: "There may be a copy of this passkey",
		text: "The passkey counts how often it was used, and its count went backwards: somebody may have copied it. Tell whoever looks " +
			"after the machine that answers here. They can remove it and have you make another.",
	}
	takenPasskey = page{
		status: http.StatusConflict, code: postern.CodeTaken,
		title: "This passkey is known already", text: "It was made for this address before. Use it, or make another on another device.",
	}
	tooManyPasskeys = page{
		status: http.StatusConflict, code: postern.CodeForbidden,
		title: "There are too many passkeys", text: "Whoever looks after the machine that answers here can remove some that are of no use any more.",
	}
)

// askForPasskey sends the browser to use a passkey, and from there to target.
func askForPasskey(w http.ResponseWriter, target string) {
	redirect(w, pathPasskey+"?"+url.Values{"target": {target}}.Encode())
}

// passkeyView is what the page for passkeys shows.
type passkeyView struct {
	frame
	Enrol        bool
	Login        string
	Code, Target string
}

func (p *proofs) passkeyPage(w http.ResponseWriter, r *http.Request) {
	v, proven, ok := p.unproven(w, r)
	if !ok {
		return
	}
	target := r.URL.Query().Get("target")
	if err := checkTarget(target); err != nil {
		p.gate.refuse(w, r, badTarget, err)
		return
	}
	switch {
	case proven || v.service.Require != postern.RequirePasskey:
		redirect(w, target)
	case len(p.passkeys.of(ownerAt(v.host, *v.person))) == 0:
		writePage(w, r, noPasskey.of(v.service).by(v.person))
	default:
		render(w, http.StatusOK, "passkey.html", allowJS, passkeyView{
			frame: frameOf(r, "Your passkey, please", page{}.of(v.service).service), Login: v.person.Login, Target: target,
		})
	}
}

// relyingParty returns the relying party that is v's host.
func (v visitor) relyingParty() (*webauthn.WebAuthn, error) {
	return relyingParty(v.host, v.table.origin(v.host), v.service.Title)
}

// passkeyVisitor is visitor for who is about to use a passkey.
func (p *proofs) passkeyVisitor(w http.ResponseWriter, r *http.Request) (visitor, *webauthn.WebAuthn, bool) {
	v, proven, ok := p.unproven(w, r)
	if !ok {
		return v, nil, false
	}
	if proven || v.service.Require != postern.RequirePasskey {
		writePage(w, r, page{
			status: http.StatusConflict, code: postern.CodeInvalid, title: "There is nothing to prove", text: "No passkey is wanted of you here. Load the page again.",
		})
		return v, nil, false
	}
	rp, err := v.relyingParty()
	if err != nil {
		p.passkeyFailed(w, r, err)
		return v, nil, false
	}
	return v, rp, true
}

func (p *proofs) passkeyOptions(w http.ResponseWriter, r *http.Request) {
	v, rp, ok := p.passkeyVisitor(w, r)
	if !ok {
		return
	}
	options, err := p.passkeys.beginUse(&p.open, rp, ownerAt(v.host, *v.person), v.session.Hash, p.gate.now())
	p.passkeyAnswer(w, r, options, err)
}

// passkeyNext is where a browser goes on when it has made or used a passkey.
type passkeyNext struct {
	Next string `json:"next"`
}

func (p *proofs) passkeyFinish(w http.ResponseWriter, r *http.Request) {
	v, rp, ok := p.passkeyVisitor(w, r)
	if !ok {
		return
	}
	var in struct {
		Target     string          `json:"target"`
		Credential json.RawMessage `json:"credential"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	if err := checkTarget(in.Target); err != nil {
		p.gate.refuse(w, r, badTarget, err)
		return
	}
	now := p.gate.now()
	k, err := p.passkeys.finishUse(&p.open, rp, ownerAt(v.host, *v.person), v.session.Hash, in.Credential, now)
	if err != nil {
		p.passkeyFailed(w, r, err)
		return
	}
	secret, ok := p.gate.sessions.raise(v.session.Hash, k.ID, now)
	if !ok { // it ended meanwhile
		p.gate.turnAway(w, r, v.host, v.service, nobody, nil)
		return
	}
	p.gate.recheck()
	setCookie(w, cookieSession, secret, 0)
	p.gate.log.Info("passkey used", "server_name", v.host, "user", v.person.ID, "passkey", k.ID, "remote", r.RemoteAddr)
	writeJSON(w, http.StatusOK, passkeyNext{in.Target})
}

// enrolPage shows what a link is for. It does not use the link up: mail programs look
// at links in advance.
func (p *proofs) enrolPage(w http.ResponseWriter, r *http.Request) {
	code := r.URL.Query().Get("code")
	e, err := p.passkeys.enrolment(requestHost(r), code, p.gate.now())
	if err != nil {
		p.passkeyFailed(w, r, err)
		return
	}
	service := ""
	if svc := p.gate.table().hosts[e.Host]; svc != nil {
		service = page{}.of(svc).service
	}
	render(w, http.StatusOK, "passkey.html", allowJS, passkeyView{
		frame: frameOf(r, "Make a passkey", service), Enrol: true, Login: e.Login, Code: code,
	})
}

// enrolWish is what passkey.js sends to make a passkey; Credential at last only.
type enrolWish struct {
	Code       string          `json:"code"`
	Credential json.RawMessage `json:"credential,omitempty"`
}

// enrolRequest returns what r wants, and the relying party that it is for.
func (p *proofs) enrolRequest(w http.ResponseWriter, r *http.Request) (in enrolWish, rp *webauthn.WebAuthn, ok bool) {
	if !readJSON(w, r, &in) {
		return in, nil, false
	}
	t, host := p.gate.table(), requestHost(r)
	svc := t.hosts[host]
	if svc == nil {
		writePage(w, r, notPublished)
		return in, nil, false
	}
	rp, err := visitor{host: host, table: t, service: svc}.relyingParty()
	if err != nil {
		p.passkeyFailed(w, r, err)
		return in, nil, false
	}
	return in, rp, true
}

func (p *proofs) enrolOptions(w http.ResponseWriter, r *http.Request) {
	in, rp, ok := p.enrolRequest(w, r)
	if !ok {
		return
	}
	options, err := p.passkeys.beginEnrol(&p.open, rp, in.Code, p.gate.now())
	p.passkeyAnswer(w, r, options, err)
}

func (p *proofs) enrolFinish(w http.ResponseWriter, r *http.Request) {
	in, rp, ok := p.enrolRequest(w, r)
	if !ok {
		return
	}
	k, err := p.passkeys.finishEnrol(&p.open, rp, in.Code, in.Credential, p.gate.now())
	if err == nil {
		p.gate.log.Info("passkey made", "server_name", k.Host, "user", k.Person, "passkey", k.ID, "remote", r.RemoteAddr)
	}
	p.passkeyAnswer(w, r, passkeyNext{"/"}, err)
}

// passkeyAnswer answers with v, unless err is not nil.
func (p *proofs) passkeyAnswer(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		p.passkeyFailed(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

// passkeyFailed answers a request that err was the end of.
func (p *proofs) passkeyFailed(w http.ResponseWriter, r *http.Request, err error) {
	var wrong *protocol.Error
	var unknown *protocol.ErrorUnknownCredential
	answer := pageFor(err, notKept, []outcome{
		{errEnrol, badEnrol}, {errPasskeyAbsent, noPasskey}, {errPasskeyTaken, takenPasskey}, {errPasskeyLimit, tooManyPasskeys},
		{errCloned, clonedPasskey}, {errCrowded, crowded}, {errCeremony, badPasskey},
	})
	switch {
	case errors.Is(err, errEnrol) && !p.wrong.another(sourceOf(r), p.gate.now()): // strangers may guess links
		answer = tooManyGuesses
	case errors.As(err, &wrong):
		answer, err = badPasskey, fmt.Errorf("passkey: %s: %.500s", wrong.Details, wrong.DevInfo)
	case errors.As(err, &unknown):
		answer, err = badPasskey, fmt.Errorf("passkey: %w", err)
	case answer.status == http.StatusInternalServerError: // the disk, and nothing that they did
		p.gate.log.Error("make or use a passkey", "server_name", requestHost(r), "err", err)
		writePage(w, r, notKept)
		return
	}
	p.gate.refuse(w, r, answer, err)
}

// readJSON fills v from r, or answers and reports false.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		writePage(w, r, tooLong)
		return false
	}
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	if err == nil {
		err = in.Decode(v)
	}
	if err == nil {
		if _, after := in.Token(); after != io.EOF {
			err = errors.New("something follows the object")
		}
	}
	if err != nil {
		writePage(w, r, badForm)
		return false
	}
	return true
}

// servePasskeyJS answers with the script of passkey.html.
func servePasskeyJS(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(passkeyJS))
}

var passkeyJS = func() []byte {
	script, err := pageFiles.ReadFile("passkey.js")
	if err != nil {
		panic(err)
	}
	return script
}()

// raised returns the methods of somebody who used a passkey besides.
func raised(methods []string) []string {
	if slices.Contains(methods, "hwk") {
		return methods
	}
	return append(slices.Clip(methods), "hwk") // RFC 8176: proof of possession of a key
}
