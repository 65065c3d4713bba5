package portal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"
)

// Bounds of codes.
const (
	codeLife   = time.Minute      // from its making until it has to be redeemed
	codeMemory = 10 * time.Minute // for which a second use is told from nonsense
	maxCodes   = 8192
	userCodes  = 60 // of one user, in codeLife
)

// A code lets a node learn who somebody is (RFC 6749, section 4.1.2).
type code struct {
	request authRequest
	user    string
	sid     string // of the session at the portal
	tenant  string
	made    time.Time

	used     bool // redeemed, or tried to be
	redeemed bool // with success
	replayed bool // used again
}

// codes are the codes of late, by their hashes, in memory: whoever comes to redeem
// one after a restart begins again.
type codes struct {
	now func() time.Time

	mu    sync.Mutex
	all   map[[32]byte]*code
	order [][32]byte // by age
}

func newCodes(now func() time.Time) *codes {
	return &codes{now: now, all: make(map[[32]byte]*code)}
}

// put keeps c and returns the secret that it is known by, of 256 bits. It fails
// for a user who asks for more than any person would.
func (s *codes) put(c code) (secret string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.made = s.now()
	for len(s.order) > 0 && (len(s.order) >= maxCodes || c.made.Sub(s.all[s.order[0]].made) >= codeMemory) {
		delete(s.all, s.order[0])
		s.order = s.order[1:]
	}
	late := 0
	for _, other := range s.all {
		if other.user == c.user && c.made.Sub(other.made) < codeLife {
			late++
		}
	}
	if late >= userCodes {
		return "", false
	}
	var random [32]byte
	rand.Read(random[:])
	secret = base64.RawURLEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(secret))
	s.all[hash] = &c
	s.order = append(s.order, hash)
	return secret, true
}

// use takes the code that is known by secret, nil if there is none. Only once it is
// fresh; who used it before is then told by again, if that was with success.
func (s *codes) use(secret string) (c *code, fresh, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c = s.all[sha256.Sum256([]byte(secret))]
	if c == nil {
		return nil, false, false
	}
	if c.used {
		c.replayed = true
		return c, false, c.redeemed
	}
	c.used = true
	return c, s.now().Sub(c.made) < codeLife, false
}

// redeem says that c, which was fresh, is about to be answered with a token. It is
// false if it was used a second time meanwhile.
func (s *codes) redeem(c *code) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.redeemed = !c.replayed
	return c.redeemed
}
