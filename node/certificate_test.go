package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPEMFilesReload(t *testing.T) {
	ca := newTestCA(t)
	certFile, keyFile := ca.files("a.test")
	p, err := openPEMFiles(certFile, keyFile, discard)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	show := func() (*certificate, error) { now = now.Add(reloadInterval); return p.get("a.test", now) }
	first, err := show()
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := show(); same != first {
		t.Error("loaded anew without a change")
	}

	// replace puts what make returns in place of both files; a changed size tells
	// versions apart where times are coarse.
	replace := func(chain, key []byte) {
		write(t, certFile, append(chain, bytes.Repeat([]byte("\n"), int(now.UnixNano()%89))...))
		write(t, keyFile, key)
		for _, file := range []string{certFile, keyFile} {
			if err := os.Chtimes(file, now, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	chain, key := ca.pair("a.test")
	replace(chain, key)
	if got, _ := p.get("a.test", now.Add(reloadInterval/2)); got != first {
		t.Error("the disk was looked at again too early")
	}
	second, err := show()
	if err != nil || second.sha256 == first.sha256 {
		t.Fatalf("the new certificate is not shown, %v", err)
	}
	if err := p.lastError(now); err != nil {
		t.Errorf("after a good reload: %v", err)
	}

	_, otherKey := ca.pair("a.test")
	otherName, otherNameKey := ca.pair("b.test")
	expiredKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(expiredKey)
	if err != nil {
		t.Fatal(err)
	}
	expired := ca.leaf(expiredKey.Public(), now.Add(-2*time.Hour), now.Add(-time.Hour), "a.test")
	for _, bad := range []struct {
		name       string
		chain, key []byte
		want       string
	}{
		{"another key", chain, otherKey, "does not match"},
		{"empty", nil, nil, "failed to find"},
		{"another name", otherName, otherNameKey, "not a.test"},
		{"expired", expired, encodePEM("PRIVATE KEY", der), "expired"},
	} {
		replace(bad.chain, bad.key)
		got, err := show()
		if err != nil || got.sha256 != second.sha256 {
			t.Errorf("%s: replaced the good one, %v", bad.name, err)
		}
		if err := p.lastError(now); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: status says %v, want %q", bad.name, err, bad.want)
		}
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if got, err := show(); err != nil || got.sha256 != second.sha256 || p.lastError(now) == nil {
		t.Errorf("file gone: %v, status %v", err, p.lastError(now))
	}
	replace(chain, key)
	if got, err := show(); err != nil || got.sha256 != second.sha256 || p.lastError(now) != nil {
		t.Errorf("file back: %v, status %v", err, p.lastError(now))
	}
	if _, err := p.get("b.test", now); err == nil {
		t.Error("shown at a name that it does not cover")
	}
	if p.lastError(now.AddDate(1, 0, 0)) == nil {
		t.Error("expired, and the status does not say so")
	}
}

// A fakeSigner is the coordinator's private CA, as the node sees it.
type fakeSigner struct {
	*testCA
	mu    sync.Mutex
	names []string // as given: nil for those of the request
	err   error
	life  time.Duration
	asked int
}

func (f *fakeSigner) sign(_ context.Context, csr []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.err != nil {
		return nil, f.err
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	if err := req.CheckSignature(); err != nil {
		return nil, err
	}
	if len(req.IPAddresses)+len(req.EmailAddresses)+len(req.URIs) > 0 || req.Subject.String() != "" {
		return nil, errors.New("the request asks for more than a DNS name")
	}
	names := f.names
	if names == nil {
		names = req.DNSNames
	}
	return f.leaf(req.PublicKey, time.Now(), time.Now().Add(f.life), names...), nil
}

func (f *fakeSigner) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// startIssuer runs an issuer in dir until the test's bubble is to end.
func startIssuer(t *testing.T, dir string, f *fakeSigner) (i *issuer, stop func()) {
	t.Helper()
	i = newIssuer(dir, f.sign, func() {}, discard)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { i.run(ctx) })
	return i, func() { cancel(); wg.Wait() }
}

func TestIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 90 * 24 * time.Hour
		dir := filepath.Join(t.TempDir(), "certs")
		f := &fakeSigner{testCA: newTestCA(t), life: life}
		i, stop := startIssuer(t, dir, f)
		if _, err := i.get("a.test", time.Now()); err == nil {
			t.Error("a certificate out of nothing")
		}
		i.want([]string{"a.test", "b.test"}, f.pem)
		synctest.Wait()
		a, err := i.get("a.test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b, err := i.get("b.test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Leaf.DNSNames, []string{"a.test"}) || !slices.Equal(b.Leaf.DNSNames, []string{"b.test"}) {
			t.Errorf("certificates are for %q and %q", a.Leaf.DNSNames, b.Leaf.DNSNames)
		}
		for _, name := range []string{"a.test.key", "a.test.pem"} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, mode %v", name, err, info.Mode())
			}
		}

		stop()
		i, stop = startIssuer(t, dir, f)
		i.want([]string{"a.test"}, f.pem)
		synctest.Wait()
		if again, err := i.get("a.test", time.Now()); err != nil || again.sha256 != a.sha256 || f.count() != 2 {
			t.Errorf("after a restart: %v, asked %d times, want 2", err, f.count())
		}

		<-time.After(life * 2 / 3)
		synctest.Wait()
		renewed, err := i.get("a.test", time.Now())
		if err != nil || renewed.sha256 == a.sha256 || f.count() != 3 {
			t.Errorf("with a third of its life left: %v, asked %d times, want 3", err, f.count())
		}
		if !bytes.Equal(renewed.Leaf.RawSubjectPublicKeyInfo, a.Leaf.RawSubjectPublicKeyInfo) {
			t.Error("renewed with another key")
		}
		stop()
	})
}

func TestIssuerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSigner{testCA: newTestCA(t), life: time.Hour, err: errOffline}
		i, stop := startIssuer(t, filepath.Join(t.TempDir(), "certs"), f)
		defer stop()
		i.want([]string{"a.test"}, f.pem)
		<-time.After(time.Hour)
		if n := f.count(); n < 12 || n > 40 {
			t.Errorf("asked %d times in an hour", n)
		}
		if _, err := i.get("a.test", time.Now()); !errors.Is(err, errOffline) {
			t.Errorf("error %v, want %v", err, errOffline)
		}
		f.mu.Lock()
		f.err = nil
		f.mu.Unlock()
		i.retry()
		synctest.Wait()
		if _, err := i.get("a.test", time.Now()); err != nil {
			t.Errorf("after retry: %v", err)
		}
	})
}

// A request that is cut off by the end leaves its host due.
func TestIssuerEndsWhileTheCAIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		i := newIssuer(filepath.Join(t.TempDir(), "certs"), asked, func() {}, discard)
		i.want([]string{"a.test"}, newTestCA(t).pem)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { i.run(ctx) })
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

func TestIssuerTakesNothingWorse(t *testing.T) {
	const life = 90 * 24 * time.Hour
	other := newTestCA(t)
	tests := []struct {
		name  string
		spoil func(f *fakeSigner)
		want  string
	}{
		{"refused", func(f *fakeSigner) { f.err = errors.New("no") }, "no"},
		{"a wildcard", func(f *fakeSigner) { f.names = []string{"*.test"} }, "want"},
		{"another name", func(f *fakeSigner) { f.names = []string{"b.test"} }, "want"},
		{"one name more", func(f *fakeSigner) { f.names = []string{"a.test", "b.test"} }, "want"},
		{"another CA", func(f *fakeSigner) { f.testCA = &testCA{t, other.cert, other.key, f.pem} }, "unknown authority"},
		{"over before the held one", func(f *fakeSigner) { f.life = time.Minute }, "does not last longer"},
		{"expired", func(f *fakeSigner) { f.life = -time.Minute }, "expired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "certs")
				f := &fakeSigner{testCA: newTestCA(t), life: life}
				i, stop := startIssuer(t, dir, f)
				defer stop()
				i.want([]string{"a.test"}, f.pem)
				synctest.Wait()
				held, err := i.get("a.test", time.Now())
				if err != nil {
					t.Fatal(err)
				}
				disk, err := os.ReadFile(filepath.Join(dir, "a.test.pem"))
				if err != nil {
					t.Fatal(err)
				}
				f.mu.Lock()
				tt.spoil(f)
				f.mu.Unlock()
				<-time.After(life*2/3 + time.Hour)
				synctest.Wait()
				if f.count() < 2 {
					t.Fatal("not renewed in time")
				}
				if got, err := i.get("a.test", time.Now()); err != nil || got != held {
					t.Errorf("the held certificate was given up, %v", err)
				}
				if err := i.lastError("a.test"); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("status says %v, want %q", err, tt.want)
				}
				if now, err := os.ReadFile(filepath.Join(dir, "a.test.pem")); err != nil || !bytes.Equal(now, disk) {
					t.Errorf("the file on disk changed, %v", err)
				}
			})
		})
	}
}

// What lies on disk may be cut off, foreign or out of date; a good certificate
// must come of it all the same.
func TestIssuerMendsTheDisk(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, dir string, f *fakeSigner)
	}{
		{"no chain", func(t *testing.T, dir string, _ *fakeSigner) { os.Remove(filepath.Join(dir, "a.test.pem")) }},
		{"half a chain", func(t *testing.T, dir string, _ *fakeSigner) {
			write(t, filepath.Join(dir, "a.test.pem"), []byte("-----BEGIN CERTIFICATE-----\nMIIB"))
		}},
		{"no key", func(t *testing.T, dir string, _ *fakeSigner) { os.Remove(filepath.Join(dir, "a.test.key")) }},
		{"empty key", func(t *testing.T, dir string, _ *fakeSigner) { write(t, filepath.Join(dir, "a.test.key"), nil) }},
		{"another name's", func(t *testing.T, dir string, f *fakeSigner) {
			chain, key := f.pair("b.test")
			write(t, filepath.Join(dir, "a.test.pem"), chain)
			write(t, filepath.Join(dir, "a.test.key"), key)
		}},
		{"a new CA", func(t *testing.T, dir string, f *fakeSigner) { f.testCA = newTestCA(t) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "certs")
				f := &fakeSigner{testCA: newTestCA(t), life: time.Hour}
				i, stop := startIssuer(t, dir, f)
				i.want([]string{"a.test"}, f.pem)
				synctest.Wait()
				stop()
				tt.spoil(t, dir, f)
				i, stop = startIssuer(t, dir, f)
				defer stop()
				i.want([]string{"a.test"}, f.pem)
				synctest.Wait()
				got, err := i.get("a.test", time.Now())
				if err != nil {
					t.Fatal(err)
				}
				if err := got.verify("a.test", f.pem, time.Now()); err != nil {
					t.Error(err)
				}
				if f.count() != 2 {
					t.Errorf("asked %d times, want 2", f.count())
				}
			})
		})
	}
}

// The end comes while the CA is asked: what it broke off is not tried for ever.
func TestIssuerEndsWhileAsking(t *testing.T) {
	ca := newTestCA(t)
	ctx, cancel := context.WithCancel(t.Context())
	i := newIssuer(t.TempDir(), func(ctx context.Context, _ []byte) ([]byte, error) {
		cancel()
		return nil, ctx.Err()
	}, func() {}, discard)
	i.want([]string{"a.test"}, ca.pem)
	if err := i.run(ctx); err != nil {
		t.Error(err)
	}
}
