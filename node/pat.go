package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"postern"
)

// A patSecret is a personal access token, as its owner holds it. Its text form is
//
//	pst_pat_ base64url(32 random bytes) _ crc32
//
// with the CRC-32 (IEEE) of all that precedes its underscore, in eight hex digits,
// to tell a mistyped token from a refused one. The node keeps the hash of the
// secret and nothing else of it.
type patSecret [32]byte

// patChars is how long every token's text is.
const patChars = len(tokenPrefix) + 43 + 1 + 8

// errPAT is wrapped by the errors of parsePAT.
var errPAT = errors.New("not a personal access token")

func newPATSecret() (s patSecret) {
	rand.Read(s[:])
	return s
}

// text returns the token's text form.
func (s patSecret) text() string {
	t := tokenPrefix + base64.RawURLEncoding.EncodeToString(s[:])
	return fmt.Sprintf("%s_%08x", t, crc32.ChecksumIEEE([]byte(t)))
}

// String returns what kind of secret it is, never the secret.
func (s patSecret) String() string { return tokenPrefix + "…" }

// GoString returns what String does.
func (s patSecret) GoString() string { return s.String() }

// LogValue returns what String does.
func (s patSecret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// hash returns what the node keeps of s. The secret has 256 random bits, so that a
// plain hash of it gives nothing away.
func (s patSecret) hash() patHash { return sha256.Sum256(s[:]) }

// parsePAT reads a token's text form. Errors wrap errPAT, say what is wrong with the
// text, and never quote it.
func parsePAT(text string) (s patSecret, err error) {
	switch {
	case !isPAT(text):
		return s, fmt.Errorf("%w: it does not start with %s", errPAT, tokenPrefix)
	case len(text) != patChars:
		return s, fmt.Errorf("%w: it has %d characters, not %d", errPAT, len(text), patChars)
	}
	signed, sum := text[:patChars-9], text[patChars-9:]
	if fmt.Sprintf("_%08x", crc32.ChecksumIEEE([]byte(signed))) != sum {
		return s, fmt.Errorf("%w: its checksum does not match: mistyped or cut short", errPAT)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(signed[len(tokenPrefix):])
	if err != nil || len(b) != len(s) { // fewer if there are line breaks, which the decoder leaves out
		return s, fmt.Errorf("%w: its middle is not base64url", errPAT)
	}
	copy(s[:], b)
	return s, nil
}

// isPAT reports whether text is meant to be a personal access token, which is
// nobody's business but the node's.
func isPAT(text string) bool { return strings.HasPrefix(text, tokenPrefix) }

// A patHash is the SHA-256 of a patSecret.
type patHash [32]byte

// MarshalText returns the hash in base64url.
func (h patHash) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, h[:]), nil
}

// UnmarshalText takes 43 characters of base64url.
func (h *patHash) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(h) || len(text) != 43 {
		return errors.New("want 43 characters of base64url for the hash of a token")
	}
	copy(h[:], b)
	return nil
}

// Scopes of a personal access token.
const (
	patRead  = "read"  // GET, HEAD and OPTIONS
	patWrite = "write" // any method
)

// A pat is what the node keeps of a personal access token. It lets a program do at
// one host what its owner may, for as long as they may.
type pat struct {
	ID      string    `json:"id"` // for lists; no secret
	Hash    patHash   `json:"hash"`
	Host    string    `json:"host"`  // the one host name that it is good at
	Owner   string    `json:"owner"` // id of the person
	Login   string    `json:"login"` // of the owner, when it was made
	Proof   proof     `json:"proof"` // how the owner had proved who they are when they made it
	Name    string    `json:"name"`  // for people
	Scope   string    `json:"scope"` // patRead or patWrite
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"` // last; late by patFlush at most after a crash

	// Who the owner is and until when, if the pinned issuer said so: no map has them.
	Person  *postern.Person `json:"person,omitempty"`
	Vouched time.Time       `json:"vouched,omitzero"` // when it said so last
}

// good reports whether t is neither expired nor without somebody who vouches for its
// owner.
func (t pat) good(now time.Time) bool {
	return now.Before(t.Expires) && (t.Proof.Issuer == "" || now.Sub(t.Vouched) <= patVouch)
}

// permits reports whether the token's scope covers r. What would be more than
// reading though its method says otherwise is not covered by patRead.
func (t pat) permits(r *http.Request) bool {
	if t.Scope == patWrite {
		return true
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		return false
	}
	// A WebSocket can carry anything, and some frameworks take the method from a header.
	for name := range r.Header {
		switch foldName(name) {
		case "upgrade", "x-http-method", "x-http-method-override", "x-method-override":
			return false
		}
	}
	return true
}
