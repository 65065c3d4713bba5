package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"postern/internal/datadir"
)

// An issuer keeps one certificate of the deployment's private CA for each host
// name: HOST.key is made here and never leaves, HOST.pem is the chain. Its
// methods are safe for concurrent use.
type issuer struct {
	dir     string // made when the first key is
	sign    func(ctx context.Context, csr []byte) (chain []byte, err error)
	changed func() // called after a certificate changed
	log     *slog.Logger
	poke    chan struct{}

	mu    sync.Mutex
	ca    []byte // PEM
	hosts map[string]*issued
}

// issued is one host's certificate. run alone changes it, under the issuer's lock.
type issued struct {
	cert     *certificate // nil: none yet
	err      error        // of the last attempt
	failures int
	forced   bool      // the next look gets a new one in any case
	next     time.Time // when to look again
}

const (
	maxWait     = 5 * time.Minute // between attempts, without a certificate to show
	maxWaitHeld = time.Hour       // with one
	checkWait   = 6 * time.Hour   // between looks at a certificate that is well
)

func newIssuer(dir string, sign func(context.Context, []byte) ([]byte, error), changed func(), log *slog.Logger) *issuer {
	return &issuer{
		dir: dir, sign: sign, changed: changed, log: log,
		poke: make(chan struct{}, 1), hosts: map[string]*issued{},
	}
}

// want makes hosts the names to keep certificates for, signed by ca. What is on
// disk for other names stays there.
func (i *issuer) want(hosts []string, ca []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := make(map[string]*issued, len(hosts))
	for _, host := range hosts {
		st := i.hosts[host]
		if st == nil {
			st = &issued{}
		}
		if string(ca) != string(i.ca) {
			st.next = time.Time{}
		}
		next[host] = st
	}
	i.hosts, i.ca = next, ca
	wake(i.poke)
}

// retry tries at once what failed before.
func (i *issuer) retry() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, st := range i.hosts {
		if st.err != nil {
			st.next, st.failures = time.Time{}, 0
		}
	}
	wake(i.poke)
}

// errNoCertificate says that the private CA has not been asked yet.
var errNoCertificate = errors.New("there is no certificate yet")

// get implements source.
func (i *issuer) get(host string, _ time.Time) (*certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch st := i.hosts[host]; {
	case st == nil:
		return nil, errNoCertificate
	case st.cert != nil:
		return st.cert, nil
	case st.err != nil:
		return nil, st.err
	}
	return nil, errNoCertificate
}

// lastError returns with what the last attempt for host failed.
func (i *issuer) lastError(host string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if st := i.hosts[host]; st != nil {
		return st.err
	}
	return nil
}

// run gets and renews certificates until ctx is done, one after the other.
func (i *issuer) run(ctx context.Context) error {
	for ctx.Err() == nil { // what is cut off by the end stays due
		host, wait := i.nextDue(time.Now())
		if host != "" {
			i.look(ctx, host, time.Now())
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-i.poke:
			timer.Stop()
		case <-timer.C:
		}
	}
	return nil
}

// nextDue returns a host to look after, or how long there is none.
func (i *issuer) nextDue(now time.Time) (host string, wait time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	wait = checkWait
	for h, st := range i.hosts {
		if !st.next.After(now) {
			return h, 0
		}
		wait = min(wait, st.next.Sub(now))
	}
	return "", wait
}

// look brings host's certificate up to date: from memory, from disk, from the CA.
func (i *issuer) look(ctx context.Context, host string, now time.Time) {
	i.mu.Lock()
	st, ca := i.hosts[host], i.ca
	forced := st != nil && st.forced
	if st != nil {
		st.forced = false
	}
	i.mu.Unlock()
	if st == nil {
		return // no longer wanted
	}
	cert := st.cert
	if cert == nil {
		cert = i.load(host, ca, now)
	}
	var err error
	if cert == nil || forced || !now.Before(cert.renewal()) || cert.verify(host, ca, now) != nil {
		var fresh *certificate
		if fresh, err = i.issue(ctx, host, ca, cert, now); err == nil {
			cert = fresh
		}
	}
	if ctx.Err() == nil {
		i.keep(st, host, cert, err, now)
	}
}

// keep notes the outcome of a look.
func (i *issuer) keep(st *issued, host string, cert *certificate, err error, now time.Time) {
	i.mu.Lock()
	changed := cert != st.cert
	again := err != nil && st.err != nil && st.err.Error() == err.Error()
	st.cert, st.err = cert, err
	switch {
	case err == nil:
		st.failures, st.next = 0, now.Add(checkWait)
		if r := cert.renewal(); r.Before(st.next) {
			st.next = r
		}
	case cert == nil:
		st.next = now.Add(backoff(st.failures, maxWait))
		st.failures++
	default:
		st.next = now.Add(backoff(st.failures, maxWaitHeld))
		st.failures++
	}
	i.mu.Unlock()

	switch {
	case err != nil && !again:
		i.log.Warn("get a certificate; trying again", "server_name", host, "err", err)
	case err == nil && changed:
		i.log.Info("certificate ready", "server_name", host, "source", cert.source, "not_after", cert.Leaf.NotAfter)
	}
	if changed {
		i.changed()
	}
}

// load returns host's certificate on disk, nil if there is none of use.
func (i *issuer) load(host string, ca []byte, now time.Time) *certificate {
	chain, err := os.ReadFile(i.path(host, ".pem"))
	if err != nil {
		return nil
	}
	key, err := os.ReadFile(i.path(host, ".key"))
	if err != nil {
		return nil
	}
	cert, err := parseCertificate(chain, key, SourceCA)
	if err == nil {
		err = cert.verify(host, ca, now)
	}
	if err != nil {
		i.log.Info("the certificate on disk is of no use", "server_name", host, "err", err)
		return nil
	}
	return cert
}

// issue gets a certificate for host from the CA and writes it to disk. It does
// not take one that is worse than held, which may be nil.
func (i *issuer) issue(ctx context.Context, host string, ca []byte, held *certificate, now time.Time) (*certificate, error) {
	key, keyPEM, err := i.key(host)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{host}}, key)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	chain, err := i.sign(ctx, csr)
	if err != nil {
		return nil, err
	}
	cert, err := parseCertificate(chain, keyPEM, SourceCA)
	if err == nil {
		err = cert.verify(host, ca, now)
	}
	if err != nil {
		return nil, fmt.Errorf("what the private CA gave: %w", err)
	}
	if held != nil && held.verify(host, ca, now) == nil && !cert.Leaf.NotAfter.After(held.Leaf.NotAfter) {
		return nil, errors.New("what the private CA gave does not last longer than what is held")
	}
	if err := datadir.Write(i.path(host, ".pem"), chain); err != nil {
		// It serves from memory; the next start asks again.
		i.log.Error("keep a certificate on disk", "server_name", host, "err", err)
	}
	return cert, nil
}

// key returns host's key, and makes it if there is none of use. It is on disk
// before it is used, so that a certificate never outlives its key.
func (i *issuer) key(host string) (crypto.Signer, []byte, error) {
	path := i.path(host, ".key")
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		if key := parseKey(text); key != nil {
			return key, text, nil
		}
		i.log.Warn("the key on disk is of no use; making another", "server_name", host)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	text = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return nil, nil, err
	}
	return key, text, datadir.Write(path, text)
}

// parseKey returns the ECDSA P-256 key in text (PKCS #8 in PEM), nil if there is
// none.
func parseKey(text []byte) crypto.Signer {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil
	}
	return key
}

func (i *issuer) path(host, ext string) string { return filepath.Join(i.dir, host+ext) }

// backoff returns how long to wait after the failures+1st failure: about two to
// the power of failures seconds, at most limit, with jitter.
func backoff(failures int, limit time.Duration) time.Duration {
	d := min(limit, time.Second<<min(failures, 20))
	return d/2 + mathrand.N(d/2)
}
