package node

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// reloadInterval is how often, at most, files are looked at for a change.
const reloadInterval = 2 * time.Second

// pemFiles are an operator's own certificate and key, and follow the files on
// disk. Its methods are safe for concurrent use.
type pemFiles struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	cert   *certificate // good when it was loaded
	err    error        // why what is on disk now is not cert
	stamp  fileStamp    // of what was looked at last
	looked time.Time
}

// fileStamp tells one version of the two files from the next.
type fileStamp struct {
	certTime, keyTime time.Time
	certSize, keySize int64
}

// openPEMFiles loads both files. It fails if they are no certificate and its
// key, or expired.
func openPEMFiles(certFile, keyFile string, log *slog.Logger) (*pemFiles, error) {
	p := &pemFiles{certFile: certFile, keyFile: keyFile, log: log}
	var err error
	if p.stamp, err = p.look(); err != nil {
		return nil, err
	}
	p.cert, err = p.load(time.Now())
	return p, err
}

// get implements source. It looks at the disk if the last look is long ago.
func (p *pemFiles) get(host string, now time.Time) (*certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.looked) >= reloadInterval {
		p.looked = now
		p.reload(host, now)
	}
	if err := p.cert.Leaf.VerifyHostname(host); err != nil {
		return nil, fmt.Errorf("%s: %w", p.certFile, err)
	}
	return p.cert, nil
}

// reload loads what is on disk if that is new. What is bad, or of no use for
// host when the one held is, does not replace it.
func (p *pemFiles) reload(host string, now time.Time) {
	stamp, err := p.look()
	if err == nil && stamp == p.stamp {
		return
	}
	p.stamp = stamp // zero if they cannot be looked at
	var cert *certificate
	if err == nil {
		cert, err = p.load(now)
	}
	if err == nil && p.cert.Leaf.VerifyHostname(host) == nil {
		if err = cert.Leaf.VerifyHostname(host); err != nil {
			err = fmt.Errorf("%s: %w", p.certFile, err)
		}
	}
	if err != nil {
		if p.err == nil || p.err.Error() != err.Error() {
			p.log.Error("the new certificate files are of no use; going on with the old", "err", err)
		}
		p.err = err
		return
	}
	if cert.sha256 != p.cert.sha256 {
		p.log.Info("certificate files reloaded", "not_after", cert.Leaf.NotAfter)
	}
	p.cert, p.err = cert, nil
}

// lastError returns why the certificate in use is not to be relied on, if it is so.
func (p *pemFiles) lastError(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	return p.cert.expired(now)
}

func (p *pemFiles) look() (fileStamp, error) {
	cert, err := os.Stat(p.certFile)
	if err != nil {
		return fileStamp{}, err
	}
	key, err := os.Stat(p.keyFile)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{cert.ModTime(), key.ModTime(), cert.Size(), key.Size()}, nil
}

func (p *pemFiles) load(now time.Time) (*certificate, error) {
	chain, err := os.ReadFile(p.certFile)
	if err != nil {
		return nil, err
	}
	key, err := readPrivate(p.keyFile)
	if err != nil {
		return nil, err
	}
	cert, err := parseCertificate(chain, key, SourceFile)
	if err == nil {
		err = cert.expired(now)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %s, key %s: %w", p.certFile, p.keyFile, err)
	}
	return cert, nil
}
