package postern

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
)

const redacted = "(redacted)"

// A WireGuardPrivate is a member's X25519 private key (WireGuard whitepaper,
// section 5). Its text form is standard base64, as in wg(8). String and
// LogValue never show it.
type WireGuardPrivate [32]byte

// A WireGuardPublic is the public half of a WireGuardPrivate, in text as in wg(8).
type WireGuardPublic [32]byte

// An IdentityPrivate is the 32-byte seed of a member's Ed25519 identity
// (RFC 8032, section 5.1.5). Its text form is standard base64. String and
// LogValue never show it.
type IdentityPrivate [32]byte

// An IdentityPublic is a member's Ed25519 public key.
type IdentityPublic [32]byte

// NewWireGuardPrivate returns a fresh key from the system's random source.
func NewWireGuardPrivate() WireGuardPrivate {
	var k WireGuardPrivate
	rand.Read(k[:])
	// Clamped as X25519 would on every use (RFC 7748, section 5), so that the
	// stored text is the one that wg(8) shows.
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

// Public returns the public half.
func (k WireGuardPrivate) Public() WireGuardPublic {
	return WireGuardPublic(k.ecdh().PublicKey().Bytes())
}

// Shared returns the X25519 secret shared with pub (RFC 7748, section 6.1).
// It fails for a public key of low order.
func (k WireGuardPrivate) Shared(pub WireGuardPublic) ([]byte, error) {
	p, err := ecdh.X25519().NewPublicKey(pub[:])
	if err != nil {
		return nil, fmt.Errorf("wireguard public key: %w", err)
	}
	return k.ecdh().ECDH(p)
}

func (k WireGuardPrivate) ecdh() *ecdh.PrivateKey {
	p, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic("postern: X25519 refused a key of 32 bytes: " + err.Error())
	}
	return p
}

// NewIdentityPrivate returns a fresh identity from the system's random source.
func NewIdentityPrivate() IdentityPrivate {
	var k IdentityPrivate
	rand.Read(k[:])
	return k
}

// Key returns the key in the form that crypto/tls and crypto/ed25519 take.
func (k IdentityPrivate) Key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k[:]) }

// Public returns the public half.
func (k IdentityPrivate) Public() IdentityPublic {
	return IdentityPublic(k.Key().Public().(ed25519.PublicKey))
}

// Key returns the key in the form that crypto/ed25519 takes.
func (k IdentityPublic) Key() ed25519.PublicKey { return ed25519.PublicKey(k[:]) }

// IsZero reports whether k is absent.
func (k WireGuardPublic) IsZero() bool { return k == WireGuardPublic{} }

// IsZero reports whether k is absent.
func (k IdentityPublic) IsZero() bool { return k == IdentityPublic{} }

func (k WireGuardPublic) String() string      { return encodeKey(k) }
func (k IdentityPublic) String() string       { return encodeKey(k) }
func (k WireGuardPrivate) String() string     { return redacted }
func (k IdentityPrivate) String() string      { return redacted }
func (k WireGuardPrivate) GoString() string   { return redacted }
func (k IdentityPrivate) GoString() string    { return redacted }
func (WireGuardPrivate) LogValue() slog.Value { return slog.StringValue(redacted) }
func (IdentityPrivate) LogValue() slog.Value  { return slog.StringValue(redacted) }

// MarshalText returns the key in base64, private keys included: it is how they
// reach the member's own disk.
func (k WireGuardPrivate) MarshalText() ([]byte, error) { return []byte(encodeKey(k)), nil }

// MarshalText returns the key in base64.
func (k WireGuardPublic) MarshalText() ([]byte, error) { return []byte(encodeKey(k)), nil }

// MarshalText returns the key in base64, private keys included: it is how they
// reach the member's own disk.
func (k IdentityPrivate) MarshalText() ([]byte, error) { return []byte(encodeKey(k)), nil }

// MarshalText returns the key in base64.
func (k IdentityPublic) MarshalText() ([]byte, error) { return []byte(encodeKey(k)), nil }

// UnmarshalText takes 44 characters of standard base64.
func (k *WireGuardPrivate) UnmarshalText(text []byte) error { return decodeKey((*[32]byte)(k), text) }

// UnmarshalText takes 44 characters of standard base64.
func (k *WireGuardPublic) UnmarshalText(text []byte) error { return decodeKey((*[32]byte)(k), text) }

// UnmarshalText takes 44 characters of standard base64.
func (k *IdentityPrivate) UnmarshalText(text []byte) error { return decodeKey((*[32]byte)(k), text) }

// UnmarshalText takes 44 characters of standard base64.
func (k *IdentityPublic) UnmarshalText(text []byte) error { return decodeKey((*[32]byte)(k), text) }

func encodeKey(k [32]byte) string { return base64.StdEncoding.EncodeToString(k[:]) }

// decodeKey never quotes its input: it may be a private key.
func decodeKey(k *[32]byte, text []byte) error {
	b, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(k) || len(text) != 44 { // more: the decoder leaves out line breaks
		return fmt.Errorf("a key is 32 bytes in base64 (44 characters), not %d characters like these", len(text))
	}
	copy(k[:], b)
	return nil
}
