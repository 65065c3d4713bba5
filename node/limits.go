package node

import (
	"errors"
	"fmt"
	"time"

	"postern"
)

// A SignIn says how people sign in at a node, and for how long.
type SignIn struct {
	// Idle is how long a session lasts after it was used last. If zero, 30 min.
	Idle time.Duration `json:"idle,omitempty"`

	// Max is how long one lasts in all, at most 24 h. If zero, 12 h.
	Max time.Duration `json:"max,omitempty"`

	// Issuer is the OpenID issuer that services with RequireIssuer ask. If nil, there
	// is none.
	Issuer *PinnedIssuer `json:"issuer,omitempty"`
}

const shortestSession = time.Minute

// check reports what is wrong with s, as a *postern.FieldError below sign_in.
func (s SignIn) check() error {
	s = s.withDefaults()
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"idle", s.Idle}, {"max", s.Max}} {
		if d.value < shortestSession || d.value > longestMax {
			return &postern.FieldError{
				Field: "sign_in." + d.name,
				Err:   fmt.Errorf("%s %v of a session is not within %v to %v", d.name, d.value, shortestSession, longestMax),
			}
		}
	}
	if s.Issuer == nil {
		return nil
	}
	issuer := *s.Issuer
	issuer.setDefaults()
	var wrong *postern.FieldError
	if err := issuer.check(); errors.As(err, &wrong) {
		return &postern.FieldError{Field: "sign_in.issuer." + wrong.Field, Err: wrong.Err}
	}
	return nil
}

func (s SignIn) withDefaults() SignIn {
	if s.Idle == 0 {
		s.Idle = defaultIdle
	}
	if s.Max == 0 {
		s.Max = defaultMax
	}
	return s
}

// setSignIn makes s what holds for sessions. If it fails, nothing changes.
func (n *Node) setSignIn(s SignIn) error {
	if err := n.server.proofs.setPinned(s.Issuer); err != nil {
		return &postern.FieldError{Field: "sign_in.issuer", Err: err}
	}
	s = s.withDefaults()
	n.server.gate.sessions.setLimits(s.Idle, s.Max)
	n.server.gate.recheck()
	return nil
}
