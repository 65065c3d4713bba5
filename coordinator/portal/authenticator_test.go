package portal_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// An authenticator holds one passkey, ES256 without attestation, and can be made to
// say what an honest one would not (Web Authentication Level 3, section 6).
type authenticator struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	id      []byte
	user    []byte // handle
	counter uint32
	flags   byte
	host    string // relying party's id
	origin  string
}

const (
	userPresent  = 0x01
	userVerified = 0x04
	attested     = 0x40
)

func newAuthenticator(t *testing.T, d *deployment) *authenticator {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	a := &authenticator{t: t, key: key, id: make([]byte, 16), flags: userPresent | userVerified, host: d.PortalHost(), origin: d.PortalURL()}
	rand.Read(a.id)
	return a
}

// options is what of a ceremony's options an authenticator looks at.
type options struct {
	Challenge              string
	User                   struct{ ID, Name string }
	RP                     struct{ ID string }
	RPID                   string `json:"rpId"`
	UserVerification       string
	ExcludeCredentials     []struct{ ID string }
	AuthenticatorSelection struct {
		ResidentKey, UserVerification string
	}
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func (a *authenticator) clientData(kind, challenge string) []byte {
	data, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.origin, "crossOrigin": false})
	must(a.t, err)
	return data
}

func (a *authenticator) data(flags byte) []byte {
	hash := sha256.Sum256([]byte(a.host))
	return binary.BigEndian.AppendUint32(append(hash[:], flags), a.counter)
}

// create answers options for a new passkey.
func (a *authenticator) create(o options) map[string]any {
	handle, err := base64.RawURLEncoding.DecodeString(o.User.ID)
	must(a.t, err)
	a.user = handle
	point, err := a.key.PublicKey.Bytes()
	must(a.t, err)
	cose, err := webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}) // RFC 9053, section 7.1.1
	must(a.t, err)
	data := a.data(a.flags | attested)
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(a.id)))
	data = append(append(data, a.id...), cose...)
	object, err := webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data})
	must(a.t, err)
	return a.credential(map[string]any{
		"clientDataJSON":    b64(a.clientData("webauthn.create", o.Challenge)),
		"attestationObject": b64(object),
		"transports":        []string{"internal"},
	})
}

// get answers options for a passkey that is there.
func (a *authenticator) get(o options) map[string]any {
	a.counter++
	client := a.clientData("webauthn.get", o.Challenge)
	hash := sha256.Sum256(client)
	data := a.data(a.flags)
	digest := sha256.Sum256(append(data[:len(data):len(data)], hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	must(a.t, err)
	return a.credential(map[string]any{
		"clientDataJSON":    b64(client),
		"authenticatorData": b64(data),
		"signature":         b64(signature),
		"userHandle":        b64(a.user),
	})
}

func (a *authenticator) credential(response map[string]any) map[string]any {
	return map[string]any{
		"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "response": response,
		"authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{},
	}
}
