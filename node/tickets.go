package node

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"slices"
	"sync/atomic"

	"postern"
)

// Tickets resume a TLS connection (RFC 8446, section 2.2) and prove nobody: who it is, is
// asked anew with each request. Still, once something was taken from somebody, none of
// before is worth anything. It would be simpler to change the keys, but then crypto/tls
// would no longer do so each day.
type tickets struct {
	epoch atomic.Pointer[[16]byte] // that tickets of now have in them
}

// end makes all tickets that there are useless.
func (t *tickets) end() {
	epoch := new([16]byte)
	rand.Read(epoch[:])
	t.epoch.Store(epoch)
}

// mark has cfg's tickets end when t says so.
func (t *tickets) mark(cfg *tls.Config) {
	cfg.WrapSession = func(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, t.epoch.Load()[:])
		return cfg.EncryptTicket(state, session)
	}
	cfg.UnwrapSession = func(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		session, err := cfg.DecryptTicket(ticket, state)
		if err != nil || session == nil {
			return nil, err
		}
		epoch := t.epoch.Load()
		if !slices.ContainsFunc(session.Extra, func(e []byte) bool { return bytes.Equal(e, epoch[:]) }) {
			return nil, nil // a whole handshake, then
		}
		return session, nil
	}
}

// revokes reports whether something was taken from somebody of before, or may have been.
func revokes(before, now map[string]*postern.Person) bool {
	for id, was := range before {
		if is := now[id]; is == nil || !is.Equal(*was) {
			return true
		}
	}
	return false
}
