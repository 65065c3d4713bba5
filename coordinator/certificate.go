package coordinator

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// issued is a certificate of the private CA whose key is in memory only.
type issued struct {
	host      string
	authority *Authority
	key       *ecdsa.PrivateKey

	mu   sync.Mutex
	cert *tls.Certificate
}

// get returns the certificate, a new one when less than a third of its life is
// left. The old one is shown until that succeeds.
func (i *issued) get() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert != nil && i.cert.Leaf.NotAfter.Sub(i.authority.now()) >= hostLife/3 {
		return i.cert, nil
	}
	leaf, err := i.authority.issueHost(i.host, &i.key.PublicKey)
	switch {
	case err == nil:
		i.cert = &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: i.key, Leaf: leaf}
	case i.cert == nil:
		return nil, err
	}
	return i.cert, nil
}

// reloadInterval is how often, at most, files are looked at for a change.
const reloadInterval = 2 * time.Second

// certFiles are a certificate's chain and its key, PEM files that somebody else
// renews.
type certFiles struct {
	host      string
	cert, key string // paths
	now       func() time.Time
	log       *slog.Logger

	mu     sync.Mutex
	held   *tls.Certificate
	stamp  certStamp // of what was loaded last, or could not be
	looked time.Time
}

// A certStamp tells one version of the two files from the next.
type certStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// open loads the files for the first time.
func (f *certFiles) open() error {
	f.looked = f.now()
	var err error
	if f.stamp, err = f.look(); err == nil {
		f.held, err = f.load()
	}
	return err
}

// get returns what the files had last that was of use.
func (f *certFiles) get() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.looked) < reloadInterval {
		return f.held, nil
	}
	f.looked = now
	stamp, err := f.look()
	if err == nil && stamp == f.stamp {
		return f.held, nil
	}
	// Each version is tried, and complained of, once: between two writes the
	// files are no pair.
	tried := stamp == f.stamp
	f.stamp = stamp // zero if they cannot be looked at
	var cert *tls.Certificate
	if err == nil {
		cert, err = f.load()
	}
	switch {
	case err == nil:
		f.held = cert
		f.log.Info("portal's certificate reloaded", "not_after", cert.Leaf.NotAfter)
	case !tried:
		f.log.Error("the portal's new certificate is of no use; going on with the old", "err", err)
	}
	return f.held, nil
}

func (f *certFiles) look() (certStamp, error) {
	cert, err := os.Stat(f.cert)
	if err != nil {
		return certStamp{}, err
	}
	key, err := os.Stat(f.key)
	if err != nil {
		return certStamp{}, err
	}
	return certStamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

func (f *certFiles) load() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err == nil && cert.Leaf == nil {
		cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0])
	}
	if err == nil {
		err = checkLeaf(cert.Leaf, f.host, f.now())
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", f.cert, f.key, err)
	}
	return &cert, nil
}

// checkLeaf reports what is wrong with leaf as host's own, and nobody else's.
func checkLeaf(leaf *x509.Certificate, host string, now time.Time) error {
	if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != host || len(leaf.IPAddresses) > 0 {
		return fmt.Errorf("it is for %q and addresses %v; it has to be for %q alone", leaf.DNSNames, leaf.IPAddresses, host)
	}
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("it expired on %s", leaf.NotAfter.Format(time.DateOnly))
	}
	return nil
}
