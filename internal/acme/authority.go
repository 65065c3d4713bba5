package acme

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"postern"
)

const userAgent = "postern"

// An authority is where orders are placed, and our account there. Its methods are safe
// for concurrent use.
type authority struct {
	url, name string // of the directory, and its host for people
	store     store
	log       *slog.Logger
	clock     func() time.Time
	timing    timing
	turn      chan struct{} // held while the authority is talked to about itself

	mu       sync.Mutex
	issuer   Issuer  // the settings
	session  session // by the settings; zero: to be made
	fetched  time.Time
	record   record // of the account; zero: not registered
	err      error  // of the last look
	failures int
	next     time.Time // when to look again
}

// A session is how an authority is talked to under given settings.
type session struct {
	http      *http.Client
	transport *transport
	client    *acme.Client
	directory *directory
}

// A directory is where an authority's resources are (RFC 8555, section 7.1.1).
type directory struct {
	tag         string // of this state of the directory: the fragment of its URL, for the client
	text        []byte // what the client gets there
	meta        acme.DirectoryMeta
	renewalInfo string // kept from the client, which would ask between a certificate and us
}

func newAuthority(directory string, store store, cfg Config) *authority {
	name := directory
	if u, err := url.Parse(directory); err == nil && u.Host != "" {
		name = u.Host
	}
	return &authority{
		url: directory, name: clean(name), store: store, log: cfg.Logger, clock: cfg.clock, timing: cfg.timing,
		turn: make(chan struct{}, 1), record: store.account(directory),
	}
}

// set gives a its settings.
func (a *authority) set(is Issuer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.issuer.Directory != "" && a.issuer.sameAccount(is) {
		return
	}
	a.close()
	a.issuer, a.session = is, session{}
	a.err, a.failures, a.next, a.fetched = nil, 0, time.Time{}, time.Time{}
}

// close ends what connections idle. a is locked.
func (a *authority) close() {
	if a.session.http != nil {
		a.session.http.CloseIdleConnections()
	}
}

// uri returns the account's, empty if it is not registered.
func (a *authority) uri() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.record.URI
}

// caa returns the names by which CAA records know the authority, as far as it told them.
func (a *authority) caa() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.record.CAA
}

// hurry makes the next look come at once.
func (a *authority) hurry() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, ok := errors.AsType[*pause](a.err); !ok || !p.asked {
		a.next = time.Time{}
	}
}

// due returns when the account is to be registered; ok is false if it is.
func (a *authority) due() (at time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.next, a.record.URI == ""
}

// directoryLife is how long a directory is believed to be as it was.
const directoryLife = time.Minute

// directoryNow returns a session with a directory that is fresh.
func (a *authority) directoryNow(ctx context.Context) (session, error) {
	return a.look(ctx, func(ctx context.Context, is Issuer, s session) error { return nil })
}

// account returns a session and our account, registered if need be.
func (a *authority) account(ctx context.Context) (session, acme.Account, error) {
	var account acme.Account
	s, err := a.look(ctx, func(ctx context.Context, is Issuer, s session) error {
		var err error
		account, err = a.register(ctx, is, s)
		return err
	})
	return s, account, err
}

// look fetches the directory if it is old, and does what is to be done with it. After
// a failure it fails for a while without asking, with a pause that says how long.
func (a *authority) look(ctx context.Context, do func(context.Context, Issuer, session) error) (session, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return session{}, ctx.Err()
	}
	a.mu.Lock()
	is, s, now := a.issuer, a.session, a.clock()
	old := s.directory == nil || now.Sub(a.fetched).Abs() > directoryLife
	err := a.err
	if now.Before(a.next) && err != nil {
		a.mu.Unlock()
		return session{}, err
	}
	a.mu.Unlock()

	noted, n := withNote(ctx)
	err = nil
	if old {
		s, err = a.fetch(noted, is, s)
	}
	if err == nil {
		err = plain(do(noted, is, s))
	}
	if ctx.Err() != nil && err != nil {
		return session{}, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.issuer.sameAccount(is) {
		return s, err // of settings that are gone
	}
	if err == nil {
		if old {
			a.session, a.fetched = s, now
		}
		a.err, a.next = nil, time.Time{}
		if a.record.URI != "" {
			a.failures = 0
		}
		return s, nil
	}
	a.failures++
	p := &pause{err: err, idle: true, until: now.Add(backoff(a.timing.down, a.failures, maxDown))}
	if asked := now.Add(min(n.wait, maxAsked)); asked.After(p.until) {
		p.until, p.asked = asked, true
	}
	a.err, a.next = p, p.until
	return session{}, p
}

// fetch gets the directory, in s or in a new session if s is zero. It fails if the
// authority's clock and ours are far apart: what it would give us then could not be
// judged.
func (a *authority) fetch(ctx context.Context, is Issuer, s session) (session, error) {
	if u, err := url.Parse(is.Directory); err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "" {
		return session{}, fmt.Errorf("the directory of an authority is an https URL, not %q", is.Directory)
	}
	if s.http == nil {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if len(is.Roots) > 0 {
			config.RootCAs = x509.NewCertPool()
			if !config.RootCAs.AppendCertsFromPEM(is.Roots) {
				return session{}, fmt.Errorf("there is no certificate in the roots of %s", a.name)
			}
		}
		s.transport = &transport{base: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: a.timing.request, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: atOnce,
		}}
		s.http = &http.Client{Transport: s.transport, Timeout: a.timing.request}
	}
	resp, body, err := s.get(ctx, is.Directory)
	if err != nil {
		return session{}, err
	}
	if theirs, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		if ours := a.clock(); ours.Sub(theirs).Abs() > clockSkew {
			return session{}, fmt.Errorf("this machine's clock says %s, and that of %s %s: one of them is wrong",
				stamp(ours), a.name, stamp(theirs))
		}
	}
	d, err := parseDirectory(body)
	if err != nil {
		return session{}, fmt.Errorf("directory of %s: %w", a.name, err)
	}
	if s.directory != nil && s.directory.tag == d.tag {
		return s, nil
	}
	s.directory = d
	s.transport.directory.Store(d)
	s.client = &acme.Client{
		Directory: is.Directory + "#" + d.tag, HTTPClient: s.http, UserAgent: userAgent,
		PollInterval: a.timing.poll, PollTimeout: a.timing.attempt,
	}
	return s, nil
}

func parseDirectory(text []byte) (*directory, error) {
	var dir acme.Directory
	if err := json.Unmarshal(text, &dir); err != nil {
		return nil, err
	}
	if dir.NewNonce == "" || dir.NewAccount == "" || dir.NewOrder == "" {
		return nil, errors.New("it lacks newNonce, newAccount or newOrder")
	}
	d := &directory{renewalInfo: strings.TrimRight(dir.RenewalInfo, "/")}
	dir.RenewalInfo = ""
	if dir.Meta != nil {
		d.meta = *dir.Meta
	}
	var err error
	if d.text, err = json.Marshal(dir); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(d.text)
	d.tag = hex.EncodeToString(sum[:8])
	return d, nil
}

// register returns our account. It asks the authority only if there is no record of it,
// with the key that we have, so that what was lost is found again.
func (a *authority) register(ctx context.Context, is Issuer, s session) (acme.Account, error) {
	key, err := a.store.key(a.store.accountFile(a.url, ".key"))
	if err != nil {
		return acme.Account{}, err
	}
	a.mu.Lock()
	rec := a.record
	a.mu.Unlock()
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return acme.Account{}, err
	}
	sum := sha256.Sum256(public)
	id := hex.EncodeToString(sum[:])
	if rec.URI != "" && rec.Key != id {
		a.log.Warn("the account at an authority has another key than ours; registering again", "authority", a.name, "account", rec.URI)
		rec = record{}
	}
	account := acme.Account{Status: acme.StatusValid, TermsOfServiceAgreed: true, PrivateKey: key}
	if is.Email != "" {
		account.Contact = []string{"mailto:" + is.Email}
	}
	known := account
	known.Location = rec.URI
	names := slices.DeleteFunc(slices.Clone(s.directory.meta.CAAIdentities), func(name string) bool { return postern.CheckHost(name) != nil })
	if rec.URI != "" && rec.Email == is.Email && slices.Equal(rec.CAA, names) {
		return known, nil
	}
	if rec.URI != "" && rec.Email != is.Email {
		// The account is good without it, so it is no reason to go without certificates.
		if _, err := s.client.UpdateAccount(ctx, acme.Account{Contact: account.Contact, Location: rec.URI, PrivateKey: key}); err != nil {
			a.log.Warn("tell an authority our address", "authority", a.name, "err", plain(err))
			if isRefusal(plain(err), accountDoesNotExist) {
				a.forget(rec.URI)
				rec.URI = ""
			}
		}
	}
	if rec.URI == "" {
		if rec.URI, err = a.enroll(ctx, is, s, account); err != nil {
			return acme.Account{}, err
		}
	}
	rec.Directory, rec.Email, rec.Key, rec.CAA = a.url, is.Email, id, names
	if err := a.store.writeJSON(a.store.accountFile(a.url, ".json"), rec); err != nil {
		return acme.Account{}, err
	}
	a.mu.Lock()
	fresh := a.record.URI != rec.URI
	a.record = rec
	a.mu.Unlock()
	if fresh {
		a.log.Info("account registered", "authority", a.name, "account", rec.URI)
	}
	known.Location = rec.URI
	return known, nil
}

// enroll makes an account, or finds the one that has our key (RFC 8555, section 7.3).
func (a *authority) enroll(ctx context.Context, is Issuer, s session, account acme.Account) (uri string, err error) {
	account.Status = ""
	switch {
	case (is.KeyID == "") != (is.HMAC == ""):
		return "", errors.New("binding the account takes both a key id and its HMAC key")
	case is.KeyID != "":
		mac := strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(strings.TrimSpace(is.HMAC))
		if err := account.SetExternalAccountBinding(ctx, s.client, acme.EAB{KeyID: is.KeyID, MACKey: mac}); err != nil {
			return "", errors.New("the HMAC key to bind the account with is not base64url") // the text of the error has parts of it
		}
	}
	account, err = s.client.NewAccount(ctx, account)
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(account.Location); err != nil || u.Scheme != "https" {
		return "", fmt.Errorf("%s gave our account no URL", a.name)
	}
	return account.Location, nil
}

// forget drops the record of an account that the authority no longer has. The key stays:
// with it, another is made.
func (a *authority) forget(uri string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.record.URI == uri {
		a.record = record{}
		a.log.Warn("an authority does not know our account any more; registering again", "authority", a.name, "account", uri)
	}
}
