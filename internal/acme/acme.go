// Package acme gets certificates from public authorities and keeps them (RFC 8555):
// one certificate for each host name, by TLS-ALPN-01 (RFC 8737) alone, renewed when
// the authority says (RFC 9773), or with a third of its life left.
//
// The keys of accounts and certificates are made in Config.Dir and never leave it. A
// certificate that is held is shown whatever happens, until a better one was verified.
//
// The way of a certificate: Run finds what is due (run.go), an authority that knows our
// account takes an order (authority.go, order.go), what it gives is verified
// (certificate.go), written (store.go), and shown from then on.
package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"postern"
)

// An Issuer is an authority, and who we are to it.
type Issuer struct {
	postern.ACMEIssuer
	Email string // contact of the account; empty: none

	// KeyID and HMAC (base64url) bind the account to one that the authority knows
	// from elsewhere (RFC 8555, section 7.3.4). Both or neither.
	KeyID, HMAC string
}

// Config says where certificates are kept and how an authority reaches us.
type Config struct {
	Dir string // of accounts, keys and certificates; made when needed, 0700

	// Await returns when handshakes for host that offer acme-tls/1 come here; the
	// authority is told to connect after that. An error is logged and does not stop
	// the attempt. If nil, they always come here.
	Await func(ctx context.Context, host string) error
	// Settled says that they need not come any more: once for each Await.
	Settled func(host string)

	// Changed is called after the State of some host changed. It must not block. If
	// nil, nobody is told.
	Changed func()

	Logger *slog.Logger // if nil, nothing is logged

	clock  func() time.Time // if nil, time.Now
	timing timing           // if zero, usual
}

// An Account is ours at an authority.
type Account struct {
	Directory string
	URI       string   // what a CAA record's accounturi names (RFC 8657)
	CAA       []string // by which names CAA records know the authority (RFC 8555, section 9.7.6: caaIdentities)
}

// A State is how it stands with the certificate of one host.
type State struct {
	Certificate *tls.Certificate // with Leaf; nil: none
	Issuer      string           // directory of the authority that gave it; empty: not known
	Account     string           // URI of the account that it was given to; without a certificate, of the first issuer's
	Renewal     time.Time        // when the next attempt or renewal is due
	Waiting     string           // for what; empty: all is well
	Err         error            // of the last attempt, in the authority's words; nil after success
}

// A Manager gets and keeps certificates. Its methods are safe for concurrent use.
type Manager struct {
	cfg   Config
	store store
	poke  chan struct{} // wakes Run

	mu          sync.Mutex
	issuers     []Issuer
	hosts       map[string]*host
	running     map[string]context.CancelFunc // by host, which one may outlast for a while, or directory
	authorities map[string]*authority         // by directory
	challenges  map[string]*tls.Certificate   // by host
}

// errNone says that no attempt was made so far.
var errNone = errors.New("there is no certificate yet")

// New checks what is in cfg.Dir; it starts nothing. A key that others can read is an
// error that says what to do.
func New(cfg Config) (*Manager, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Await == nil {
		cfg.Await = func(context.Context, string) error { return nil }
	}
	if cfg.Settled == nil {
		cfg.Settled = func(string) {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	if cfg.clock == nil {
		cfg.clock = time.Now
	}
	if cfg.timing == (timing{}) {
		cfg.timing = usual
	}
	store := store{dir: cfg.Dir, log: cfg.Logger}
	if err := store.check(); err != nil {
		return nil, err
	}
	return &Manager{
		cfg: cfg, store: store, poke: make(chan struct{}, 1),
		hosts: map[string]*host{}, running: map[string]context.CancelFunc{},
		authorities: map[string]*authority{}, challenges: map[string]*tls.Certificate{},
	}, nil
}

// Want makes hosts (wire form) the names to keep certificates for, and issuers the
// authorities to ask, in this order: the next when one refuses or is not there. It
// does not wait for anything. An attempt for a host that is gone ends; its files stay.
// Other issuers get the next certificate: what is held stays until it is due. Issuers
// with the same directory, for two profiles, share the first one's account.
func (m *Manager) Want(hosts []string, issuers []Issuer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, is := range issuers {
		if m.authorities[is.Directory] == nil {
			m.authorities[is.Directory] = newAuthority(is.Directory, m.store, m.cfg)
		}
		if slices.IndexFunc(issuers, func(o Issuer) bool { return o.Directory == is.Directory }) == i {
			m.authorities[is.Directory].set(is)
		}
	}
	now := m.cfg.clock()
	changed := !slices.EqualFunc(issuers, m.issuers, sameIssuer)
	m.issuers = slices.Clone(issuers)
	next := make(map[string]*host, len(hosts))
	for _, name := range hosts {
		h := m.hosts[name]
		if h == nil {
			h = &host{name: name, next: now}
			if h.bad = postern.CheckHost(name); h.bad != nil {
				h.err = fmt.Errorf("no certificate for it: %w", h.bad)
			}
		}
		if changed && h.err != nil {
			h.tries, h.next = nil, now
		}
		next[name] = h
	}
	for name, cancel := range m.running {
		if next[name] == nil && m.authorities[name] == nil {
			cancel()
		}
	}
	m.hosts = next
	m.wake()
}

func sameIssuer(a, b Issuer) bool {
	return a.Directory == b.Directory && a.Profile == b.Profile && a.sameAccount(b)
}

// sameAccount tells whether a and b reach the same account in the same way.
func (a Issuer) sameAccount(b Issuer) bool {
	return string(a.Roots) == string(b.Roots) && a.Email == b.Email && a.KeyID == b.KeyID && a.HMAC == b.HMAC
}

func (m *Manager) wake() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// Get returns the certificate to show at host, or why there is none.
func (m *Manager) Get(host string) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch h := m.hosts[host]; {
	case h == nil:
		return nil, fmt.Errorf("no certificate is kept for %q", host)
	case h.cert != nil:
		return h.cert, nil
	case h.err != nil:
		return nil, h.err
	}
	return nil, errNone
}

// Challenge returns what to show an authority at host: the answer to a ClientHello
// that offers acme-tls/1 alone (RFC 8737, section 3). The server has to choose that
// protocol.
func (m *Manager) Challenge(host string) (*tls.Certificate, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	cert, ok := m.challenges[host]
	return cert, ok
}

// State returns how it stands with host; zero if it is not wanted.
func (m *Manager) State(host string) State {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[host]
	if h == nil {
		return State{}
	}
	return m.state(h, m.cfg.clock())
}

// state is State for h. m is locked.
func (m *Manager) state(h *host, now time.Time) State {
	st := State{
		Certificate: h.cert, Issuer: h.from.Directory, Account: h.from.Account,
		Renewal: h.next, Waiting: h.step, Err: h.err,
	}
	if h.cert == nil && len(m.issuers) > 0 {
		st.Account = m.authorities[m.issuers[0].Directory].uri()
	}
	if h.cert != nil && h.err == nil {
		st.Renewal, st.Err = h.renewal, dates(h.cert.Leaf, now)
	}
	switch wait := h.next.Sub(now); {
	case st.Waiting != "" || h.bad != nil:
	case len(m.issuers) == 0 && (h.cert == nil || h.err != nil):
		st.Waiting = "an authority to ask"
	case h.err != nil && wait > 0:
		st.Waiting = "next try in " + max(wait.Round(time.Second), time.Second).String()
	case h.cert == nil || h.err != nil:
		st.Waiting = "its turn"
	}
	return st
}

// Renew gets a certificate for host now, even if that is not due. What an authority
// asked us to wait is waited all the same; the error says until when.
func (m *Manager) Renew(host string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[host]
	switch {
	case h == nil:
		return fmt.Errorf("no certificate is kept for %q", host)
	case h.bad != nil:
		return h.err
	}
	now := m.cfg.clock()
	free := len(m.issuers) == 0
	for _, is := range m.issuers {
		t := h.try(is)
		free = free || !t.asked || !now.Before(t.next)
	}
	if !free {
		return fmt.Errorf("asked to wait until %s: %w", h.next.UTC().Format(time.RFC3339), h.err)
	}
	for _, t := range h.tries {
		if !t.asked {
			t.next = time.Time{}
		}
	}
	for _, a := range m.authorities {
		a.hurry()
	}
	h.forced, h.next = true, time.Time{}
	m.wake()
	return nil
}

// Accounts returns our accounts at the issuers that are wanted, as far as they are
// registered: that comes before the first order.
func (m *Manager) Accounts() []Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Account
	for _, is := range m.issuers {
		a := m.authorities[is.Directory]
		account := Account{Directory: is.Directory, URI: a.uri(), CAA: a.caa()}
		if account.URI != "" && !slices.ContainsFunc(list, func(l Account) bool { return l.Directory == account.Directory }) {
			list = append(list, account)
		}
	}
	return list
}
