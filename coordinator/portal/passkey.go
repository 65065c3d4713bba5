package portal

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern"
	"postern/coordinator"
)

// passkeys are the portal as a relying party (Web Authentication Level 3). The
// relying party's id is the portal's host name, so that no other host can ask for
// what was made here. A passkey signs in alone: it has to be discoverable, and to
// verify its user.
type passkeys struct {
	*webauthn.WebAuthn
	begun *underWay[ceremony] // by challenge
}

// A ceremony is what somebody began who is about to use or make a passkey.
type ceremony struct {
	webauthn.SessionData
	// whom a new passkey is for: a user's id, or an invitation's secret; or what one
	// that is there is used for: confirming and a user's id, or, if empty, to sign in
	whose string
}

func newPasskeys(cfg Config) (passkeys, error) {
	at, err := url.Parse(cfg.Coordinator.PortalURL())
	if err != nil {
		return passkeys{}, fmt.Errorf("the portal's URL: %w", err)
	}
	w, err := webauthn.New(&webauthn.Config{
		RPID:                  at.Hostname(),
		RPDisplayName:         cfg.Name,
		RPOrigins:             []string{at.String()},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey:        protocol.ResidentKeyRequirementRequired,
			RequireResidentKey: protocol.ResidentKeyRequired(),
			UserVerification:   protocol.VerificationRequired,
		},
	})
	return passkeys{w, newUnderWay[ceremony](cfg.Now)}, err
}

// An owner is a user and the passkeys that matter at the moment, as the library
// wants to see them.
type owner struct {
	coordinator.User
	credentials []webauthn.Credential
}

func (o *owner) WebAuthnID() []byte                         { return []byte(o.ID) }
func (o *owner) WebAuthnName() string                       { return o.Login }
func (o *owner) WebAuthnDisplayName() string                { return cmp.Or(o.Name, o.Login) }
func (o *owner) WebAuthnCredentials() []webauthn.Credential { return o.credentials }

func credentialOf(k coordinator.Passkey) (c webauthn.Credential, err error) {
	if err := json.Unmarshal(k.Credential, &c); err != nil {
		return c, fmt.Errorf("credential of passkey %q: %w", k.ID, err)
	}
	return c, nil
}

// keep puts c into k as it is to be stored, without the attestation: nobody asks
// for it again.
func keep(k *coordinator.Passkey, c *webauthn.Credential) error {
	c.Attestation = webauthn.CredentialAttestation{}
	data, err := json.Marshal(c)
	k.ID, k.Credential = base64.RawURLEncoding.EncodeToString(c.ID), data
	return err
}

// confirming is what precedes a user's id in a ceremony's whose.
const confirming = "confirm "

func (p *Portal) signInPasskey(w http.ResponseWriter, r *http.Request) { p.askPasskey(w, r, "") }

// askPasskey asks r's browser for any passkey that is there.
func (p *Portal) askPasskey(w http.ResponseWriter, r *http.Request, whose string) {
	options, session, err := p.passkeys.BeginDiscoverableLogin()
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.passkeys.begun.put(session.Challenge, knowBrowser(w, r), remoteOf(r), ceremony{*session, whose})
	writeJSON(w, options.Response)
}

func (p *Portal) signInPasskeyFinish(w http.ResponseWriter, r *http.Request) {
	next, ok := p.nextOf(w, r)
	if !ok {
		return
	}
	u, ok := p.usedPasskey(w, r, "")
	if !ok {
		return
	}
	if err := p.startSession(w, r, u.ID, byPasskey); err != nil {
		p.fail(w, r, err)
		return
	}
	writeJSON(w, onward{next})
}

// usedPasskey returns whose passkey is in r's body, which was asked for whose; it
// answers r if that is none.
func (p *Portal) usedPasskey(w http.ResponseWriter, r *http.Request, whose string) (u coordinator.User, ok bool) {
	answer, err := protocol.ParseCredentialRequestResponseBody(r.Body)
	if err != nil {
		p.refusePasskey(w, r, err)
		return u, false
	}
	ceremony, ok := p.begun(w, r, answer.Response.CollectedClientData.Challenge, whose)
	if !ok {
		return u, false
	}
	k, u, refused, err := p.usePasskey(r.Context(), ceremony.SessionData, answer)
	if id, ok := strings.CutPrefix(whose, confirming); ok && refused == nil && u.ID != id {
		refused = errors.New("it is another's than who is signed in")
	}
	if err == nil && refused == nil {
		err = p.c.PutPasskey(r.Context(), coordinator.ActorUser(u.ID), k)
	}
	switch {
	case err != nil:
		p.fail(w, r, err)
	case refused != nil:
		p.refusePasskey(w, r, refused)
	default:
		return u, true
	}
	return u, false
}

// An onward says where a script goes on.
type onward struct {
	Next string `json:"next"`
}

// usePasskey verifies answer, and returns the passkey as it is to be kept from now
// on, and whose it is; refused says why it is none.
func (p *Portal) usePasskey(ctx context.Context, session webauthn.SessionData, answer *protocol.ParsedCredentialAssertionData) (k coordinator.Passkey, u coordinator.User, refused, err error) {
	var c webauthn.Credential
	k, u, err = p.c.Passkey(ctx, base64.RawURLEncoding.EncodeToString(answer.RawID))
	if err == nil {
		c, err = credentialOf(k)
	}
	if errors.Is(err, coordinator.ErrNotFound) {
		return k, u, err, nil
	}
	if err != nil {
		return k, u, nil, err
	}
	find := func(_, _ []byte) (webauthn.User, error) { return &owner{u, []webauthn.Credential{c}}, nil }
	_, used, err := p.passkeys.ValidatePasskeyLogin(find, session, answer)
	if err != nil {
		return k, u, err, nil
	}
	if used.Authenticator.CloneWarning {
		// Section 6.1.1: of two devices with the same key, one is not its owner's.
		return k, u, fmt.Errorf("passkey %q of %s: its counter went back, so there may be a copy of it", k.Name, u.Login), nil
	}
	k.Used = p.cfg.Now()
	return k, u, nil, keep(&k, used)
}

// begun takes the ceremony of challenge that r's browser began; it answers r if
// there is none.
func (p *Portal) begun(w http.ResponseWriter, r *http.Request, challenge, whose string) (ceremony, bool) {
	browser, _ := browserOf(r)
	c, ok := p.passkeys.begun.take(challenge, browser)
	if !ok || c.whose != whose {
		p.noteStranger(r, "signin.refused", "", "a passkey's answer to a question that was not asked, or not here, or too long ago")
		p.refuse(w, r, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid,
			"this took too long, or was begun elsewhere", "load the page again and try once more"))
		return c, false
	}
	return c, true
}

// refusePasskey answers r, whose passkey is not accepted because of err.
func (p *Portal) refusePasskey(w http.ResponseWriter, r *http.Request, err error) {
	detail := err.Error()
	var theirs *protocol.Error
	if errors.As(err, &theirs) && theirs.DevInfo != "" {
		detail += ": " + theirs.DevInfo
	}
	p.noteStranger(r, "signin.refused", "", "passkey: "+detail)
	p.refuse(w, r, postern.NewProblem(http.StatusUnauthorized, postern.CodeUnauthorized,
		"this passkey was not accepted", "use another one, or sign in another way"))
}

// beginPasskey asks r's browser for a new passkey of u.
func (p *Portal) beginPasskey(w http.ResponseWriter, r *http.Request, u coordinator.User, whose string) {
	held, err := p.c.Passkeys(r.Context(), u.ID)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	o := &owner{User: u}
	for _, k := range held {
		c, err := credentialOf(k)
		if err != nil {
			p.log.Error("passkey not readable", "err", err)
			continue
		}
		o.credentials = append(o.credentials, c)
	}
	options, session, err := p.passkeys.BeginRegistration(o, webauthn.WithExclusions(webauthn.Credentials(o.credentials).CredentialDescriptors()))
	if err != nil {
		p.fail(w, r, err)
		return
	}
	p.passkeys.begun.put(session.Challenge, knowBrowser(w, r), remoteOf(r), ceremony{*session, whose})
	writeJSON(w, options.Response)
}

// madePasskey returns the passkey in r's body, which was made for u; it answers r
// if that is none.
func (p *Portal) madePasskey(w http.ResponseWriter, r *http.Request, u coordinator.User, whose string) (k coordinator.Passkey, ok bool) {
	answer, err := protocol.ParseCredentialCreationResponseBody(r.Body)
	if err != nil {
		p.refusePasskey(w, r, err)
		return k, false
	}
	ceremony, ok := p.begun(w, r, answer.Response.CollectedClientData.Challenge, whose)
	if !ok {
		return k, false
	}
	c, err := p.passkeys.CreateCredential(&owner{User: u}, ceremony.SessionData, answer)
	if err != nil {
		p.refusePasskey(w, r, err)
		return k, false
	}
	k = coordinator.Passkey{User: u.ID, Name: cmp.Or(r.URL.Query().Get("title"), agentName(r.UserAgent()))}
	if err := keep(&k, c); err != nil {
		p.fail(w, r, err)
		return k, false
	}
	return k, true
}

func (p *Portal) invitePasskey(w http.ResponseWriter, r *http.Request) {
	if f, u, ok := p.invitation(w, r); ok {
		p.beginPasskey(w, r, u, f.Secret)
	}
}

func (p *Portal) invitePasskeyFinish(w http.ResponseWriter, r *http.Request) {
	f, u, ok := p.invitation(w, r)
	if !ok {
		return
	}
	k, ok := p.madePasskey(w, r, u, f.Secret)
	if !ok {
		return
	}
	u, err := p.c.Accept(r.Context(), f.Secret, r.URL.Query().Get("name"), "", &k)
	if err == nil {
		err = p.startSession(w, r, u.ID, byPasskey)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	writeJSON(w, onward{"/"})
}

// addPasskey begins to add a passkey, for who confirmed that it is them: one who
// finds a browser open cannot keep the account.
func (p *Portal) addPasskey(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	switch {
	case !p.decides(w, r, u):
	case !p.isSure(r, s):
		p.refuse(w, r, unsure())
	default:
		p.beginPasskey(w, r, u, u.ID)
	}
}

// addPasskeyFinish ends what addPasskey alone begins.
func (p *Portal) addPasskeyFinish(w http.ResponseWriter, r *http.Request, s coordinator.Session, u coordinator.User) {
	if !p.decides(w, r, u) {
		return
	}
	k, ok := p.madePasskey(w, r, u, u.ID)
	if !ok {
		return
	}
	if !p.useUp(r, s) { // several may have been begun, or this one long ago
		p.refuse(w, r, unsure())
		return
	}
	if err := p.c.PutPasskey(r.Context(), coordinator.ActorUser(u.ID), k); err != nil {
		p.fail(w, r, err)
		return
	}
	writeJSON(w, onward{"/account?done=passkey"})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // the reader's trouble if it fails
}
