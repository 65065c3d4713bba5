package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

const (
	ceremonyLife  = 5 * time.Minute
	maxCeremonies = 4096 // under way
)

var (
	errCeremony = errors.New("no such ceremony is under way")
	errCloned   = errors.New("the passkey's counter went backwards: there may be a copy of it")
	errCrowded  = errors.New("too many ceremonies are under way")
)

// ceremonies are those under way, one for each key: the making or the use of a passkey
// (Web Authentication Level 3, sections 7.1 and 7.2). Options go to the browser, what
// its authenticator makes of them comes back, once, before ceremonyLife is over. Its
// methods are safe for concurrent use.
type ceremonies struct {
	mu   sync.Mutex
	open map[string]openCeremony
}

type openCeremony struct {
	data  webauthn.SessionData
	until time.Time
}

// put begins one, in place of that which had the same key. It fails with errCrowded.
func (c *ceremonies) put(key string, data webauthn.SessionData, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[string]openCeremony{}
	}
	if _, again := c.open[key]; !again && len(c.open) >= maxCeremonies {
		for k, o := range c.open {
			if !now.Before(o.until) {
				delete(c.open, k)
			}
		}
		if len(c.open) >= maxCeremonies {
			return errCrowded
		}
	}
	c.open[key] = openCeremony{data, now.Add(ceremonyLife)}
	return nil
}

// take ends the one with that key, whose challenge is good no longer. It fails with
// errCeremony.
func (c *ceremonies) take(key string, now time.Time) (webauthn.SessionData, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.open[key]
	delete(c.open, key)
	if !ok || !now.Before(o.until) {
		return webauthn.SessionData{}, errCeremony
	}
	return o.data, nil
}

// relyingParty returns the relying party that a host name is. Origin is
// https://HOST[:PORT], as browsers see it, and title is for people.
func relyingParty(host, origin, title string) (*webauthn.WebAuthn, error) {
	return webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: title, RPOrigins: []string{origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{
			Login:        webauthn.TimeoutConfig{Timeout: ceremonyLife},
			Registration: webauthn.TimeoutConfig{Timeout: ceremonyLife},
		},
		// Password managers tell of extensions that nobody asked about.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
}

// An account is a passkeyOwner as the WebAuthn library wants to see one.
type account struct {
	owner  passkeyOwner
	handle []byte
	keys   []passkey
}

// newAccount returns the account of owner, who has keys.
func newAccount(owner passkeyOwner, keys []passkey) *account {
	a := &account{owner: owner, keys: keys}
	if len(keys) > 0 {
		a.handle = keys[0].Handle
	}
	return a
}

func (a *account) WebAuthnID() []byte          { return a.handle }
func (a *account) WebAuthnName() string        { return a.owner.Login }
func (a *account) WebAuthnDisplayName() string { return a.owner.Login }

func (a *account) WebAuthnCredentials() []webauthn.Credential {
	var list []webauthn.Credential
	for _, k := range a.keys {
		list = append(list, k.Credential)
	}
	return list
}

// beginEnrol begins to make a passkey with code. It fails with errEnrol.
func (k *passkeys) beginEnrol(open *ceremonies, rp *webauthn.WebAuthn, code string, now time.Time) (*protocol.CredentialCreation, error) {
	e, err := k.enrolment(rp.Config.RPID, code, now)
	if err != nil {
		return nil, err
	}
	a := newAccount(e.passkeyOwner, k.of(e.passkeyOwner))
	if a.handle == nil {
		a.handle = make([]byte, 32)
		rand.Read(a.handle)
	}
	options, data, err := rp.BeginRegistration(a, webauthn.WithExclusions(webauthn.Credentials(a.WebAuthnCredentials()).CredentialDescriptors()))
	if err != nil {
		return nil, fmt.Errorf("begin to make a passkey at %q: %w", rp.Config.RPID, err)
	}
	return options, open.put(enrolKey(code), *data, now)
}

// enrolKey is the key of the ceremony that code is used in.
func enrolKey(code string) string { h := hashEnrolCode(code); return "enrol " + string(h[:]) }

// finishEnrol makes the passkey that response, JSON of a browser, tells of. Code is
// used up then, and only then. What is wrong with response is a *protocol.Error.
func (k *passkeys) finishEnrol(open *ceremonies, rp *webauthn.WebAuthn, code string, response []byte, now time.Time) (passkey, error) {
	host := rp.Config.RPID
	e, err := k.enrolment(host, code, now)
	if err != nil {
		return passkey{}, err
	}
	data, err := open.take(enrolKey(code), now)
	if err != nil {
		return passkey{}, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return passkey{}, err
	}
	a := &account{owner: e.passkeyOwner, handle: data.UserID}
	c, err := rp.CreateCredential(a, data, parsed)
	if err != nil {
		return passkey{}, err
	}
	c.Attestation = webauthn.CredentialAttestation{} // of no use without a metadata service
	return k.enrol(host, code, data.UserID, *c, now)
}

// beginUse begins the use of one of owner's passkeys. Key names the sign-in that it
// is to complete. It fails with errPasskeyAbsent if owner has none.
func (k *passkeys) beginUse(open *ceremonies, rp *webauthn.WebAuthn, owner passkeyOwner, key string, now time.Time) (*protocol.CredentialAssertion, error) {
	a := newAccount(owner, k.of(owner))
	if len(a.keys) == 0 {
		return nil, errPasskeyAbsent
	}
	options, data, err := rp.BeginLogin(a)
	if err != nil {
		return nil, fmt.Errorf("begin to use a passkey at %q: %w", rp.Config.RPID, err)
	}
	return options, open.put(useKey(key), *data, now)
}

// useKey is the key of the ceremony that completes the sign-in called key.
func useKey(key string) string { return "use " + key }

// finishUse returns the passkey that response, JSON of a browser, proves that owner
// has at hand. What is wrong with response is a *protocol.Error, or errCloned.
func (k *passkeys) finishUse(open *ceremonies, rp *webauthn.WebAuthn, owner passkeyOwner, key string, response []byte, now time.Time) (passkey, error) {
	data, err := open.take(useKey(key), now)
	if err != nil {
		return passkey{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return passkey{}, err
	}
	a := newAccount(owner, k.of(owner))
	c, err := rp.ValidateLogin(a, data, parsed)
	if err != nil {
		return passkey{}, err
	}
	if c.Authenticator.CloneWarning {
		return passkey{}, errCloned
	}
	for _, p := range a.keys {
		if string(p.Credential.ID) == string(c.ID) {
			return p, k.used(p.ID, *c, now)
		}
	}
	return passkey{}, errPasskeyAbsent
}
