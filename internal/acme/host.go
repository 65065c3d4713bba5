package acme

import (
	"crypto/tls"
	"math/rand/v2"
	"time"
)

// A host is a name and its certificate. The Manager's lock guards it.
type host struct {
	name string
	bad  error // why there can be no certificate

	loaded bool
	cert   *tls.Certificate // nil: none
	from   origin           // of cert

	err     error     // of the last attempt
	step    string    // of the attempt at present
	next    time.Time // when to look again
	forced  bool      // renew even if not due
	renewal time.Time // when cert is to be replaced
	ari     ari
	tries   map[string]*try // failed, by issuer
}

// A try is how often an issuer failed to give one host its certificate, and when it
// may be asked again.
type try struct {
	failures int
	next     time.Time
	err      error
	asked    bool // it asked us to wait (Retry-After)
}

func (h *host) try(is Issuer) *try {
	key := is.Directory + " " + is.Profile
	if h.tries == nil {
		h.tries = map[string]*try{}
	}
	if h.tries[key] == nil {
		h.tries[key] = &try{}
	}
	return h.tries[key]
}

// timing is how patient we are.
type timing struct {
	poll    time.Duration // between looks at an order, unless the authority says
	request time.Duration // a request takes at most
	attempt time.Duration // an order takes at most
	await   time.Duration // Config.Await takes at most
	down    time.Duration // after the first failure to reach an authority or to register
	refused time.Duration // after the first order that failed
	urgent  time.Duration // at least between renewals that an authority wanted at once
}

var usual = timing{
	poll: time.Second, request: 30 * time.Second, attempt: 5 * time.Minute, await: 30 * time.Second,
	down: 5 * time.Second, refused: time.Minute, urgent: 6 * time.Hour,
}

const (
	maxDown        = 5 * time.Minute // between looks for an authority
	maxRefused     = time.Hour       // between orders that fail, without a certificate to show
	maxRefusedHeld = 6 * time.Hour   // with one
	maxAsked       = 7 * 24 * time.Hour
)

// backoff returns how long to wait after failures of them, one at least: first, twice
// as long each time, at most limit, with jitter.
func backoff(first time.Duration, failures int, limit time.Duration) time.Duration {
	d := min(limit, first<<min(failures-1, 16))
	return d/2 + rand.N(d/2+1)
}
