package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern"
	"postern/internal/datadir"
)

// Headers by which an application learns who is signed in. They are absent if nobody
// is, and never come from outside; see setForwarded.
const (
	headerUser     = "Postern-User"     // login, as headerText
	headerUserID   = "Postern-User-Id"  // the same for ever
	headerName     = "Postern-Name"     // as headerText
	headerRole     = "Postern-Role"     // in the tenant
	headerGroups   = "Postern-Groups"   // labels, with commas between
	headerIdentity = "Postern-Identity" // a JWT that says all of it
)

var identityHeaders = []string{headerUser, headerUserID, headerName, headerRole, headerGroups, headerIdentity}

const (
	identityLife  = 5 * time.Minute
	identityReuse = time.Minute // for which a JWT is told again
)

// announce tells the application in r's header that p sent r, at host, with c.
func (g *gate) announce(r *http.Request, host string, p *postern.Person, c *credential) {
	h := r.Header
	h.Set(headerUser, headerText(p.Login))
	h.Set(headerUserID, p.ID)
	h.Set(headerRole, p.Role)
	if p.Name != "" {
		h.Set(headerName, headerText(p.Name))
	}
	if len(p.Groups) > 0 {
		h.Set(headerGroups, strings.Join(p.Groups, ","))
	}
	t := g.table()
	token, err := g.signer.identity(t.origin(host), t.tenant, p, c, g.now())
	if err != nil {
		g.log.Error("sign who it is for the application", "server_name", host, "err", err)
		return
	}
	h.Set(headerIdentity, token)
}

// headerText returns s for a header: what is not printable ASCII, and %, is
// percent-encoded UTF-8 (RFC 3986, section 2.1).
func headerText(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if b < ' ' || b > '~' || b == '%' {
			fmt.Fprintf(&out, "%%%02X", b)
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// signFile keeps the keys of a signer in the data directory: PEM (PKCS #8), P-256.
// The first one signs; applications are told all.
const signFile = "identity-jwt.key"

// A signer tells applications who sent a request, in JWTs that they can verify with
// the JWK set below ownPath. Its methods are safe for concurrent use.
type signer struct {
	sign jose.Signer
	keys jose.JSONWebKeySet // public

	mu    sync.Mutex
	cache map[string]signed // by origin and session
}

// A signed is a JWT that was made lately.
type signed struct {
	token  string
	person *postern.Person
	since  time.Time
}

// openSigner returns the signer whose keys dir keeps, and makes a key if there is
// none. If dir is nil, the key is kept nowhere.
func openSigner(dir *datadir.Dir) (*signer, error) {
	var keys []*ecdsa.PrivateKey
	if dir != nil {
		text, err := os.ReadFile(dir.Path(signFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if keys, err = parseSignKeys(text); err != nil {
			return nil, fmt.Errorf("%s: %w", dir.Path(signFile), err)
		}
	}
	if len(keys) == 0 {
		key, text, err := newSignKey()
		if err != nil {
			return nil, err
		}
		if dir != nil {
			if err := dir.Write(signFile, text); err != nil {
				return nil, err
			}
		}
		keys = append(keys, key)
	}
	return newSigner(keys)
}

func newSignKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseSignKeys reads the content of a signFile.
func parseSignKeys(text []byte) (keys []*ecdsa.PrivateKey, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		key, ok := parsed.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			return nil, errors.New("want ECDSA P-256 keys alone")
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 && len(text) > 0 {
		return nil, errors.New("no key in it")
	}
	return keys, nil
}

func newSigner(keys []*ecdsa.PrivateKey) (*signer, error) {
	s := &signer{cache: map[string]signed{}}
	for i, key := range keys {
		public := jose.JSONWebKey{Key: key.Public(), Algorithm: string(jose.ES256), Use: "sig"}
		print, err := public.Thumbprint(crypto.SHA256) // RFC 7638
		if err != nil {
			return nil, err
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(print)
		s.keys.Keys = append(s.keys.Keys, public)
		if i > 0 {
			continue
		}
		s.sign, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: public.KeyID}},
			(&jose.SignerOptions{}).WithType("JWT"))
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// identityClaims are what a JWT says of somebody, besides the registered claims.
type identityClaims struct {
	jwt.Claims
	Login    string           `json:"preferred_username"`
	Name     string           `json:"name,omitempty"`
	Tenant   string           `json:"tenant"`
	Roles    []string         `json:"roles"`
	Groups   []string         `json:"groups,omitempty"`
	AuthTime *jwt.NumericDate `json:"auth_time,omitempty"`
	AMR      []string         `json:"amr,omitempty"`
}

// identity returns a JWT that says that p, of tenant, sent a request to origin, with
// c. It is good for identityLife less identityReuse at least.
func (s *signer) identity(origin, tenant string, p *postern.Person, c *credential, now time.Time) (string, error) {
	key := origin + " " + c.session
	if c.session != "" {
		if token, ok := s.recent(key, p, now); ok {
			return token, nil
		}
	}
	token, err := jwt.Signed(s.sign).Claims(identityClaims{
		Claims: jwt.Claims{
			Issuer: origin, Audience: jwt.Audience{origin}, Subject: p.ID,
			IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(identityLife)),
		},
		Login: p.Login, Name: p.Name, Tenant: tenant, Roles: []string{p.Role}, Groups: slices.Clone(p.Groups),
		AuthTime: jwt.NewNumericDate(c.since), AMR: c.methods,
	}).Serialize()
	if err != nil {
		return "", err
	}
	if c.session != "" {
		s.keep(key, signed{token, p, now})
	}
	return token, nil
}

func (s *signer) recent(key string, p *postern.Person, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.cache[key]
	return held.token, ok && held.person.Equal(*p) && now.Sub(held.since) < identityReuse
}

func (s *signer) keep(key string, fresh signed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cache) >= maxSessions {
		clear(s.cache)
	}
	s.cache[key] = fresh
}
