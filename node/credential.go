package node

import (
	"time"

	"postern"
)

// A credential is what a request shows of who sent it: the cookie of a session, or a
// bearer token. What it is worth is for the newest map to say; see gate.person.
type credential struct {
	person  string          // id, as the map has it
	pinned  *postern.Person // iff proof.Issuer: who it is, which no map says
	proof   proof
	sid     string    // of the session at the portal; empty: there is none
	since   time.Time // when they proved who they are; for tokens of our own, when it was made
	methods []string  // by which they did, for people to read (RFC 8176)

	lasting bool                     // whether signing out everywhere leaves it: a personal access token
	session string                   // hash of the session; empty: a bearer token
	token   string                   // what the token is called in the log; empty: a session
	good    func(now time.Time) bool // whether a token still is; nil: it is a session
}
