package postern

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/url"
	"strings"
)

// A TokenKind says what a token is good for. It is the token's visible prefix,
// so that secret scanners and people can tell one from the other.
type TokenKind string

const (
	JoinToken  TokenKind = "pstjoin1"  // enrols a member, once unless said otherwise
	AdminToken TokenKind = "pstadmin1" // operates the admin API from afar
)

// A TokenID names a token in lists and logs; it is no secret.
type TokenID [10]byte

// A RootHash is the SHA-256 of the deployment root's SubjectPublicKeyInfo. It
// pins the coordinator, so that the web's PKI plays no part in control.
type RootHash [32]byte

// A Token is what an operator hands to a machine. Its text form is
//
//	kind _ base64url(version(1) flags(1) id(10) seed(32) root(32) n(1) n×(len(2) url)) _ crc32
//
// with the CRC-32 (IEEE) of all that precedes its underscore, in eight hex
// digits, to tell a mistyped token from a refused one. The coordinator keeps
// the public half of Key and nothing else: a stolen registry enrols nothing.
type Token struct {
	Kind TokenKind
	ID   TokenID
	Seed [32]byte
	Root RootHash
	URLs []string // where the coordinator listens, best first; https, at least one
}

const (
	tokenVersion  = 1
	maxTokenURLs  = 8
	maxTokenChars = 4096
)

// ErrToken is wrapped by every error of ParseToken.
var ErrToken = errors.New("not a usable token")

// NewToken returns a token with a fresh id and seed.
func NewToken(kind TokenKind, root RootHash, urls ...string) Token {
	t := Token{Kind: kind, Root: root, URLs: urls}
	rand.Read(t.ID[:])
	rand.Read(t.Seed[:])
	return t
}

// Key returns the Ed25519 key that the token's seed stands for.
func (t Token) Key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(t.Seed[:]) }

// Public returns the public half of Key: all that a coordinator stores.
func (t Token) Public() IdentityPublic {
	return IdentityPublic(t.Key().Public().(ed25519.PublicKey))
}

// Secret returns the token's text form.
func (t Token) Secret() string {
	b := []byte{tokenVersion, 0}
	b = append(b, t.ID[:]...)
	b = append(b, t.Seed[:]...)
	b = append(b, t.Root[:]...)
	b = append(b, byte(len(t.URLs)))
	for _, u := range t.URLs {
		b = binary.BigEndian.AppendUint16(b, uint16(len(u)))
		b = append(b, u...)
	}
	s := string(t.Kind) + "_" + base64.RawURLEncoding.EncodeToString(b)
	return fmt.Sprintf("%s_%08x", s, crc32.ChecksumIEEE([]byte(s)))
}

// String returns the kind and id, never the secret.
func (t Token) String() string { return string(t.Kind) + ":" + t.ID.String() }

// GoString returns what String does.
func (t Token) GoString() string { return t.String() }

// LogValue returns what String does.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// ParseToken reads a token's text form, white space around it ignored. Errors
// wrap ErrToken, say what is wrong with the text, and never quote it.
func ParseToken(text string) (Token, error) {
	t, err := parseToken(strings.TrimSpace(text))
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	return t, nil
}

func parseToken(text string) (Token, error) {
	if text == "" {
		return Token{}, errors.New("it is empty")
	}
	if len(text) > maxTokenChars {
		return Token{}, fmt.Errorf("it has %d characters, more than the %d of the longest", len(text), maxTokenChars)
	}
	kind, rest, ok := strings.Cut(text, "_")
	if !ok || TokenKind(kind) != JoinToken && TokenKind(kind) != AdminToken {
		return Token{}, fmt.Errorf("it does not start with %s_ or %s_", JoinToken, AdminToken)
	}
	cut := strings.LastIndexByte(rest, '_')
	if cut < 0 {
		return Token{}, errors.New("it is cut short: no checksum")
	}
	signed := text[:len(kind)+1+cut]
	if sum := fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(signed))); sum != rest[cut+1:] {
		return Token{}, errors.New("its checksum does not match: mistyped or cut short")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest[:cut])
	if err != nil || strings.ContainsAny(rest[:cut], "\r\n") { // which the decoder leaves out
		return Token{}, errors.New("its middle is not base64url")
	}
	return decodeToken(TokenKind(kind), b)
}

func decodeToken(kind TokenKind, b []byte) (Token, error) {
	t := Token{Kind: kind}
	const fixed = 2 + len(t.ID) + len(t.Seed) + len(t.Root) + 1
	if len(b) > 0 && b[0] != tokenVersion {
		return Token{}, fmt.Errorf("its version is %d and this program knows %d", b[0], tokenVersion)
	}
	if len(b) < fixed {
		return Token{}, fmt.Errorf("it holds %d bytes of at least %d", len(b), fixed)
	}
	if b[1] != 0 {
		return Token{}, fmt.Errorf("its flags 0x%02x are unknown to this program", b[1])
	}
	b = b[2:]
	b = b[copy(t.ID[:], b):]
	b = b[copy(t.Seed[:], b):]
	b = b[copy(t.Root[:], b):]
	n := int(b[0])
	b = b[1:]
	if n == 0 || n > maxTokenURLs {
		return Token{}, fmt.Errorf("it names %d coordinators, not 1 to %d", n, maxTokenURLs)
	}
	for range n {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return Token{}, errors.New("a coordinator URL is cut short")
		}
		size := int(binary.BigEndian.Uint16(b))
		u := string(b[2 : 2+size])
		if err := CheckControlURL(u); err != nil {
			return Token{}, err
		}
		t.URLs = append(t.URLs, u)
		b = b[2+size:]
	}
	if len(b) != 0 {
		return Token{}, fmt.Errorf("%d bytes follow its end", len(b))
	}
	return t, nil
}

// CheckControlURL reports what is wrong with s as the address of a coordinator:
// https, a host, perhaps a port, and nothing behind it.
func CheckControlURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("coordinator URL %q: %w", s, err)
	}
	if u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return fmt.Errorf("coordinator URL %q: want https://HOST or https://HOST:PORT", s)
	}
	return nil
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewID returns a fresh random identifier for a member: 16 lower-case
// characters that are a DNS label and carry 80 bits.
func NewID() string {
	var b [10]byte
	rand.Read(b[:])
	return idEncoding.EncodeToString(b[:])
}

func (id TokenID) String() string { return idEncoding.EncodeToString(id[:]) }

// MarshalText returns the id as 16 characters of base32.
func (id TokenID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText takes 16 characters of base32, as String gives.
func (id *TokenID) UnmarshalText(text []byte) error {
	b, err := idEncoding.DecodeString(string(text))
	if err != nil || len(b) != len(id) {
		return fmt.Errorf("token id %q: want 16 characters of a to z and 2 to 7", text)
	}
	copy(id[:], b)
	return nil
}

func (h RootHash) String() string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// IsZero reports whether h is absent.
func (h RootHash) IsZero() bool { return h == RootHash{} }

// MarshalText returns the hash in base64url.
func (h RootHash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText takes 43 characters of base64url.
func (h *RootHash) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("root hash %q: want 43 characters of base64url", text)
	}
	copy(h[:], b)
	return nil
}
