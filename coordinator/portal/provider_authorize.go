package portal

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"postern"
	"postern/coordinator"
)

// An authRequest is what a node asks for (OpenID Connect Core 1.0, section
// 3.1.2.1), and all that is kept of it while somebody signs in.
type authRequest struct {
	Client    string
	Redirect  string
	State     string
	Nonce     string
	Challenge string // S256, RFC 7636, section 4.2
	Silent    bool   // prompt=none: without asking anybody anything
	Again     bool   // prompt=login: by who signs in after it
	MaxAge    *int64 // by who signed in no longer ago than that, in seconds
	Made      int64  // Unix seconds
}

// Bounds of an authRequest's parts, in bytes.
const (
	maxState = 4 << 10
	maxNonce = 256
)

// An authError is what a request is refused with at its client (RFC 6749, section
// 4.1.2.1).
type authError struct{ code, why string }

func (e *authError) Error() string { return e.code + ": " + e.why }

func refusal(code, format string, args ...any) *authError {
	return &authError{code, fmt.Sprintf(format, args...)}
}

// parseAuthRequest reads the parameters of a request. clients returns the origin of
// the client of that name. An error of another kind than *authError says that the
// client is not known, or not where it can be found: nobody must be sent there.
func parseAuthRequest(q url.Values, clients func(string) (string, bool)) (authRequest, error) {
	req := authRequest{
		Client: q.Get("client_id"), Redirect: q.Get("redirect_uri"),
		Nonce: q.Get("nonce"), Challenge: q.Get("code_challenge"),
	}
	if err := checkOnce(q); err != nil {
		return req, err
	}
	origin, ok := clients(req.Client)
	if !ok {
		return req, fmt.Errorf("nobody signs in at %.100q", req.Client)
	}
	// RFC 9700, section 2.1: exact string matching. Nothing else is.
	if req.Redirect != origin+coordinator.CallbackPath {
		return req, fmt.Errorf("%.200q is not where sign-ins at %q come back to", req.Redirect, req.Client)
	}
	if state := q.Get("state"); len(state) <= maxState {
		req.State = state
	}
	if err := req.check(q); err != nil {
		return req, err
	}
	return req, nil
}

// check reports what the profile does not have of q.
func (req *authRequest) check(q url.Values) error {
	switch {
	case q.Has("request"):
		return refusal("request_not_supported", "request objects are not supported")
	case q.Has("request_uri"):
		return refusal("request_uri_not_supported", "request objects are not supported")
	case q.Has("registration"):
		return refusal("registration_not_supported", "clients are known already")
	case q.Get("response_type") != string(oidc.ResponseTypeCode):
		return refusal("unsupported_response_type", "the response_type has to be code")
	case q.Get("response_mode") != "" && q.Get("response_mode") != string(oidc.ResponseModeQuery):
		return refusal("invalid_request", "the response_mode has to be query")
	case !slices.Contains(strings.Fields(q.Get("scope")), oidc.ScopeOpenID):
		return refusal("invalid_scope", "the scope has to have openid in it")
	case req.State == "":
		return refusal("invalid_request", "there is no state of 1 to %d bytes", maxState)
	case req.Nonce == "" || len(req.Nonce) > maxNonce:
		return refusal("invalid_request", "there is no nonce of 1 to %d bytes", maxNonce)
	case q.Get("code_challenge_method") != string(oidc.CodeChallengeMethodS256) || !isChallenge(req.Challenge):
		return refusal("invalid_request", "PKCE with S256 is required")
	}
	prompts := strings.Fields(q.Get("prompt"))
	for _, prompt := range prompts {
		switch prompt {
		case oidc.PromptNone:
			req.Silent = true
		case oidc.PromptLogin, oidc.PromptSelectAccount:
			req.Again = true
		default:
			return refusal("invalid_request", "there is no such prompt")
		}
	}
	if req.Silent && len(prompts) > 1 {
		return refusal("invalid_request", "prompt none goes with no other")
	}
	if age := q.Get("max_age"); age != "" {
		n, err := strconv.ParseUint(age, 10, 32)
		if err != nil {
			return refusal("invalid_request", "max_age is no number of seconds")
		}
		seconds := int64(n)
		req.MaxAge = &seconds
	}
	return nil
}

// isChallenge reports whether s is a SHA-256 in base64url (RFC 7636, section 4.2).
func isChallenge(s string) bool {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(sum) == 32 && len(s) == 43 // more if there are line breaks, which the decoder leaves out
}

// needs reports whether somebody who signed in at that time has to do it once more.
func (req *authRequest) needs(signed, now time.Time) bool {
	return req.Again && signed.Unix() < req.Made ||
		req.MaxAge != nil && now.Unix()-signed.Unix() > *req.MaxAge && signed.Unix() < req.Made
}

// authorize answers a browser that a node sent.
func (v *provider) authorize(w http.ResponseWriter, r *http.Request) {
	req, err := parseAuthRequest(r.URL.Query(), v.p.c.Client)
	req.Made = v.p.cfg.Now().Unix()
	var refused *authError
	switch {
	case errors.As(err, &refused):
		v.refuseAtClient(w, r, req, refused)
	case err != nil:
		v.noteRefused(r, req, err)
		v.p.refuse(w, r, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid,
			"this sign-in was asked for in a way that leads nowhere", "the link may be old or mistyped; begin at your start page"))
	default:
		v.decide(w, r, req)
	}
}

// goOn answers a browser that comes back from signing in. What it asked for before
// is found by an id that is good once, in that browser.
func (v *provider) goOn(w http.ResponseWriter, r *http.Request) {
	browser, ok := browserOf(r)
	var req authRequest
	if ok {
		req, ok = v.requests.take(r.URL.Query().Get("id"), browser)
	}
	if !ok {
		v.noteRefused(r, req, errors.New("no such sign-in is under way in this browser"))
		v.p.refuse(w, r, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid,
			"this sign-in was not begun in this browser, or took too long", "begin again at your start page"))
		return
	}
	v.decide(w, r, req)
}

// decide asks who the user is, if need be, and hands them over or refuses them.
func (v *provider) decide(w http.ResponseWriter, r *http.Request, req authRequest) {
	s, u, ok := v.p.session(r)
	again := ok && req.needs(s.Signed, v.p.cfg.Now())
	switch {
	case ok && !again:
		v.hand(w, r, req, s, u)
	case req.Silent:
		v.refuseAtClient(w, r, req, refusal("login_required", "nobody is signed in"))
	case !v.p.c.AllowPost(remoteOf(r)):
		v.noteRefused(r, req, errors.New("too many sign-ins"))
		v.p.refuse(w, r, tooManySignIns())
	default:
		id := rand.Text()
		v.requests.put(id, knowBrowser(w, r), remoteOf(r), req)
		next := signInURL(pathContinue + "?id=" + id)
		if again {
			next += "&again=1"
		}
		http.Redirect(w, r, next, http.StatusSeeOther)
	}
}

// hand gives a code for req to who may open its host, and to nobody else. It goes
// to the node in the same answer: there is no address at which another browser
// could fetch it.
func (v *provider) hand(w http.ResponseWriter, r *http.Request, req authRequest, s coordinator.Session, u coordinator.User) {
	tile, err := v.p.c.MayOpen(r.Context(), u.ID, req.Client)
	if problem := problemIn(err); problem != nil && req.Silent {
		v.refuseAtClient(w, r, req, refusal("access_denied", "%s", problem.Detail))
		return
	}
	if err != nil {
		v.noteRefused(r, req, err)
		v.p.fail(w, r, err)
		return
	}
	secret, ok := v.codes.put(code{request: req, user: u.ID, sid: s.ID, tenant: tile.Tenant})
	if !ok {
		v.noteRefused(r, req, errors.New("too many codes"))
		v.p.refuse(w, r, postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
			"your browser asks to be signed in again and again", "wait a minute and try again"))
		return
	}
	v.p.c.Note(r.Context(), coordinator.ActorUser(u.ID), "authorize", tile.Tenant, req.Client, fmt.Sprintf("%v: %s", remoteOf(r), u.Login))
	v.answer(w, req, url.Values{"code": {secret}})
}

// refuseAtClient sends the browser back to the node with an error.
func (v *provider) refuseAtClient(w http.ResponseWriter, r *http.Request, req authRequest, err *authError) {
	v.noteRefused(r, req, err)
	v.answer(w, req, url.Values{"error": {err.code}, "error_description": {err.why}})
}

// answer sends the browser back to the node with q.
func (v *provider) answer(w http.ResponseWriter, req authRequest, q url.Values) {
	if req.State != "" {
		q.Set("state", req.State)
	}
	q.Set("iss", v.issuer) // RFC 9207
	h := w.Header()
	h.Set("Location", req.Redirect+"?"+q.Encode())
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther) // RFC 9700, section 4.12: not 307
}

// noteRefused records that a browser got no code.
func (v *provider) noteRefused(r *http.Request, req authRequest, why error) {
	actor := coordinator.ActorStranger
	if _, u, ok := v.p.session(r); ok {
		actor = coordinator.ActorUser(u.ID)
	}
	v.p.c.Note(r.Context(), actor, "authorize.refused", v.p.c.TenantAt(req.Client), req.Client, fmt.Sprintf("%v: %v", remoteOf(r), why))
}
