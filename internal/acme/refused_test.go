package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/internal/acme/acmetest"
)

// Whatever an authority says, the state says it in the same words, and what is held
// stays.
func TestOrderRefused(t *testing.T) {
	t.Parallel()
	const urn = "urn:ietf:params:acme:error:"
	for _, tt := range []struct {
		name  string
		fault acmetest.Fault
		want  string
	}{
		{
			"identifier", refuse(acmetest.NewOrder, http.StatusBadRequest, "rejectedIdentifier", "policy forbids issuing for name"),
			urn + "rejectedIdentifier: policy forbids issuing for name",
		},
		{
			"malformed", refuse(acmetest.NewOrder, http.StatusBadRequest, "malformed", "line one\nline two\x1b[31m"),
			urn + "malformed: line one line two?[31m",
		},
		{
			"several reasons", func(resource string, w http.ResponseWriter, r *http.Request) bool {
				if resource != acmetest.NewOrder {
					return false
				}
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprintf(w, `{"type":"%[1]scompound","detail":"errors","subproblems":[
					{"type":"%[1]scaa","detail":"no","identifier":{"type":"dns","value":"a.example"}},
					{"type":"%[1]sdns","detail":"SERVFAIL"}]}`, urn)
				return true
			},
			urn + "compound: errors; " + urn + "caa: no (a.example); " + urn + "dns: SERVFAIL",
		},
		{
			"at the end", refuse(acmetest.Finalize, http.StatusBadRequest, "badCSR", "weak key"),
			urn + "badCSR: weak key",
		},
		{
			"no chain", refuse(acmetest.Certificate, http.StatusNotFound, "malformed", "gone"),
			urn + "malformed: gone",
		},
		{
			"out of order", refuse(acmetest.NewOrder, http.StatusInternalServerError, "serverInternal", "database is down"),
			urn + "serverInternal: database is down",
		},
		{
			"a page", func(resource string, w http.ResponseWriter, r *http.Request) bool {
				if resource == acmetest.NewOrder {
					http.Error(w, "<html>Bad Gateway</html>", http.StatusBadGateway)
				}
				return resource == acmetest.NewOrder
			},
			"HTTP 502: <html>Bad Gateway</html>",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			ca := r.ca(acmetest.Options{})
			m, first := r.holds(ca)
			ca.SetFault(tt.fault)
			m.Renew(books)
			st := r.failed(books)
			if !strings.HasSuffix(st.Err.Error(), tt.want) || strings.HasPrefix(tt.want, urn) && st.Err.Error() != tt.want {
				t.Errorf("got  %q\nwant %q", st.Err, tt.want)
			}
			r.shows(first)
			// It is not given up.
			ca.SetFault(nil)
			r.replaced(books, first)
		})
	}
}

func TestRateLimited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, other := r.ca(acmetest.Options{}), r.ca(acmetest.Options{})
	m := r.run()
	ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) bool {
		if resource != acmetest.NewOrder {
			return false
		}
		w.Header().Set("Retry-After", "7200")
		acmetest.Problem(w, http.StatusTooManyRequests, "rateLimited", "too many certificates already issued for acme.example")
		return true
	})
	m.Want([]string{books}, []Issuer{issuer(ca)})
	st := r.failed(books)
	if want := "urn:ietf:params:acme:error:rateLimited: too many certificates already issued for acme.example"; st.Err.Error() != want {
		t.Errorf("got  %q\nwant %q", st.Err, want)
	}
	if wait := time.Until(st.Renewal); wait < 7100*time.Second || wait > 7300*time.Second || !strings.HasPrefix(st.Waiting, "next try in 2h0m") && !strings.HasPrefix(st.Waiting, "next try in 1h59m") {
		t.Errorf("next try in %v (%q), want two hours", wait, st.Waiting)
	}
	if err := m.Renew(books); err == nil || !strings.Contains(err.Error(), "asked to wait until") {
		t.Errorf("Renew: %v", err)
	}
	if n := ca.Requests()[acmetest.NewOrder]; n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	// Another authority may be asked at once.
	m.Want([]string{books}, []Issuer{issuer(ca), issuer(other)})
	r.ready(books)
	if st := m.State(books); st.Issuer != other.URL {
		t.Errorf("issuer %s, want the second", st.Issuer)
	}
}

func TestAuthorityDown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	down := func(string, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	ca.SetFault(down)
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	if st := r.failed(books); !strings.Contains(st.Err.Error(), "127.0.0.1") || !strings.Contains(st.Err.Error(), "EOF") {
		t.Errorf("got %v", st.Err)
	}
	ca.SetFault(nil)
	first := r.ready(books)

	ca.SetFault(down)
	m.Renew(books)
	r.failed(books)
	r.shows(first)
	ca.SetFault(nil)
	r.replaced(books, first)
}

func TestAuthorityNotTrusted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m := r.run()
	for _, tt := range []struct {
		name  string
		spoil func(is *Issuer)
		want  string
	}{
		{"the system's roots", func(is *Issuer) { is.Roots = nil }, "certificate signed by unknown authority"},
		{"no roots", func(is *Issuer) { is.Roots = []byte("nothing") }, "no certificate in the roots"},
		{"http", func(is *Issuer) { is.Directory = strings.Replace(is.Directory, "https", "http", 1) }, "is an https URL"},
		{"no URL", func(is *Issuer) { is.Directory = "letsencrypt" }, "is an https URL"},
		{"another page", func(is *Issuer) { is.Directory += "/nothing" }, "404"},
	} {
		is := issuer(ca)
		tt.spoil(&is)
		m.Want([]string{books}, []Issuer{is})
		r.until(tt.name+": "+tt.want, func() bool {
			err := m.State(books).Err
			return err != nil && strings.Contains(err.Error(), tt.want)
		})
	}
	m.Want([]string{books}, []Issuer{issuer(ca)})
	r.ready(books)
}

// An authority that accepts connections and never answers is left for the second.
func TestAuthorityHangs(t *testing.T) {
	t.Parallel()
	for _, where := range []string{acmetest.Directory, acmetest.NewAccount, acmetest.NewOrder, acmetest.Certificate} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.timing.request, r.timing.attempt = 300*time.Millisecond, 1500*time.Millisecond
			ca, other := r.ca(acmetest.Options{}), r.ca(acmetest.Options{})
			ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) bool {
				if resource != where {
					return false
				}
				<-req.Context().Done()
				return true
			})
			m := r.run()
			m.Want([]string{books}, []Issuer{issuer(ca)})
			if st := r.failed(books); !strings.Contains(st.Err.Error(), "no answer in time") && !strings.Contains(st.Err.Error(), "did not come to an end") {
				t.Errorf("got %v", st.Err)
			}
			m.Want([]string{books}, []Issuer{issuer(ca), issuer(other)})
			r.ready(books)
			if st := m.State(books); st.Issuer != other.URL {
				t.Errorf("issuer %s, want the second", st.Issuer)
			}
		})
	}
}

// A slow authority is waited for.
func TestAuthoritySlow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	var looks atomic.Int32
	ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) bool {
		if resource == acmetest.Order && looks.Add(1) < 10 {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"status":"pending"}`)
			return true
		}
		return false
	})
	r.run().Want([]string{books}, []Issuer{issuer(ca)})
	r.ready(books)
	if n := looks.Load(); n < 10 {
		t.Errorf("%d looks at the order, want more", n)
	}
}

// A gateway that ends TLS itself cannot prove the name, and is seen.
func TestChallengeHijacked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m, first := r.holds(ca)
	r.hijacked.Store(true)
	m.Renew(books)
	if st := r.failed(books); !strings.HasPrefix(st.Err.Error(), "urn:ietf:params:acme:error:unauthorized: ") {
		t.Errorf("got %v", st.Err)
	}
	r.shows(first)
	r.hijacked.Store(false)
	r.replaced(books, first)
}

func TestSecondIssuer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, second := r.ca(acmetest.Options{}), r.ca(acmetest.Options{})
	no := refuse(acmetest.NewOrder, http.StatusForbidden, "unauthorized", "no")
	first.SetFault(no)
	second.SetFault(no)
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(first), issuer(second)})
	st := r.failed(books)
	want := fmt.Sprintf("%s: urn:ietf:params:acme:error:unauthorized: no; %s: urn:ietf:params:acme:error:unauthorized: no", hostOf(first), hostOf(second))
	if st.Err.Error() != want {
		t.Errorf("got  %q\nwant %q", st.Err, want)
	}
	second.SetFault(nil)
	cert := r.ready(books)
	if st := m.State(books); st.Issuer != second.URL || len(m.Accounts()) != 2 {
		t.Errorf("issuer %s, want the second; accounts %v", st.Issuer, m.Accounts())
	}
	first.SetFault(nil)
	m.Renew(books)
	r.replaced(books, cert)
	if st := m.State(books); st.Issuer != first.URL {
		t.Errorf("issuer %s, want the first again", st.Issuer)
	}
	if second.Replaced(cert.Leaf) {
		t.Error("an authority was told that it replaces another's certificate")
	}
}

func hostOf(ca *acmetest.CA) string {
	return strings.TrimSuffix(strings.TrimPrefix(ca.URL, "https://"), "/dir")
}

// What an authority gives is taken only if it is what was asked for, and no worse than
// what is held.
func TestBadCertificate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	type wish struct {
		names      []string
		from, to   time.Time
		otherKey   bool
		otherChain bool
		client     bool
	}
	for _, tt := range []struct {
		name, want string
		wish       wish
		text       string // in place of a chain
	}{
		{"another key", "for another key than ours", wish{otherKey: true}, ""},
		{"another name", `it is for ["evil.example"], want "books.acme.example" alone`, wish{names: []string{"evil.example"}}, ""},
		{"two names", `alone`, wish{names: []string{books, "evil.example"}}, ""},
		{"a wildcard", `alone`, wish{names: []string{"*.acme.example"}}, ""},
		{"expired", "this machine's clock says", wish{from: now.Add(-48 * time.Hour), to: now.Add(-time.Hour)}, ""},
		{"not yet", "this machine's clock says", wish{from: now.Add(48 * time.Hour), to: now.Add(200 * 24 * time.Hour)}, ""},
		{"shorter", "before what is held", wish{to: now.Add(24 * time.Hour)}, ""},
		{"another chain", "certificate signed by unknown authority", wish{otherChain: true}, ""},
		{"not for servers", "incompatible key usage", wish{client: true}, ""},
		{"nothing", "no certificate in it", wish{}, "\n"},
		{"a key", `there is a "PRIVATE KEY" in the chain`, wish{}, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
		{"garbage", "x509", wish{}, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.timing.refused = time.Hour
			ca := r.ca(acmetest.Options{})
			m, first := r.holds(ca)
			before, err := os.ReadFile(m.store.certificateFile(books, ".pem"))
			if err != nil {
				t.Fatal(err)
			}
			w := tt.wish
			if w.names == nil {
				w.names = []string{books}
			}
			if w.to.IsZero() {
				w.from, w.to = now.Add(-time.Hour), now.Add(365*24*time.Hour)
			}
			text := tt.text
			if text == "" {
				f := forge(t)
				key := &first.PrivateKey.(*ecdsa.PrivateKey).PublicKey
				if w.otherKey {
					key = &f.key.PublicKey
				}
				usage := x509.ExtKeyUsageServerAuth
				if w.client {
					usage = x509.ExtKeyUsageClientAuth
				}
				chain := f.chain(t, key, w.names, w.from, w.to, usage)
				if w.otherChain {
					chain = chain[:strings.Index(chain, "-----END CERTIFICATE-----\n")+len("-----END CERTIFICATE-----\n")] + forge(t).pem
				}
				text = chain
			}
			ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) bool {
				if resource == acmetest.Certificate {
					w.Header().Set("Content-Type", "application/pem-certificate-chain")
					w.Write([]byte(text))
				}
				return resource == acmetest.Certificate
			})
			m.Renew(books)
			st := r.failed(books)
			if !strings.Contains(st.Err.Error(), tt.want) || !strings.HasPrefix(st.Err.Error(), "what "+hostOf(ca)+" gave is refused: ") {
				t.Errorf("got %q, want %q", st.Err, tt.want)
			}
			r.shows(first)
			if after, _ := os.ReadFile(m.store.certificateFile(books, ".pem")); string(after) != string(before) {
				t.Error("the old certificate is not on disk any more")
			}
			if n := ca.Requests()[acmetest.Certificate]; n != 2 || st.Renewal.Before(time.Now().Add(20*time.Minute)) {
				t.Errorf("%d certificates were fetched, and the next try is at %v", n, st.Renewal)
			}
		})
	}
}

// A longer chain is taken, and a root in it left out.
func TestLongChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m, first := r.holds(ca)
	f := forge(t)
	text := f.chain(t, &first.PrivateKey.(*ecdsa.PrivateKey).PublicKey, []string{books}, time.Now(), time.Now().Add(365*24*time.Hour), x509.ExtKeyUsageServerAuth)
	ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) bool {
		if resource == acmetest.Certificate {
			w.Header().Set("Content-Type", "application/pem-certificate-chain")
			w.Write([]byte(text))
		}
		return resource == acmetest.Certificate
	})
	m.Renew(books)
	if second := r.replaced(books, first); len(second.Certificate) != 1 {
		t.Errorf("%d certificates in the chain, want the leaf alone", len(second.Certificate))
	}
}

// A clock that is wrong leaves what is held in place, says so, and makes no orders.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		by      time.Duration
		want    string
		expects bool // that an order is due
	}{
		{"a year ahead", 365 * 24 * time.Hour, "this machine's clock says", true},
		{"a year behind", -365 * 24 * time.Hour, "not valid before", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			ca := r.ca(acmetest.Options{})
			_, first := r.holds(ca)
			orders := ca.Requests()[acmetest.NewOrder]
			r.end()
			r.shift.Store(int64(tt.by))
			m := r.run()
			m.Want([]string{books}, []Issuer{issuer(ca)})
			asked := ca.Requests()[acmetest.Directory]
			r.until(tt.want, func() bool {
				st := m.State(books)
				return st.Err != nil && strings.Contains(st.Err.Error(), tt.want) && ca.Requests()[acmetest.Directory] > asked
			})
			if cert, err := m.Get(books); err != nil || !cert.Leaf.Equal(first.Leaf) {
				t.Errorf("the certificate is not shown: %v", err)
			}
			if n := ca.Requests()[acmetest.NewOrder]; n != orders {
				t.Errorf("%d orders were made by a wrong clock", n-orders)
			}
			// The clock is set right.
			r.shift.Store(0)
			m.Want([]string{books}, []Issuer{issuer(ca)})
			if tt.expects {
				m.Renew(books)
				r.replaced(books, first)
			} else {
				r.ready(books)
			}
		})
	}
}

// A clock in the wrong time zone is no reason to go without.
func TestClockInAnotherZone(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{-14 * time.Hour, 14 * time.Hour} {
		r := newRig(t)
		ca := r.ca(acmetest.Options{})
		r.shift.Store(int64(by))
		m := r.run()
		m.Want([]string{books}, []Issuer{issuer(ca)})
		r.until("a certificate", func() bool { return m.State(books).Certificate != nil })
	}
}

// An authority that asks everybody to wait is not asked by each host.
func TestAuthorityBusy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	var asked atomic.Int32
	ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) bool {
		if resource != acmetest.Directory {
			return false
		}
		asked.Add(1)
		w.Header().Set("Retry-After", "600")
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return true
	})
	var hosts []string
	for i := range 20 {
		hosts = append(hosts, fmt.Sprintf("h%d.acme.example", i))
	}
	m := r.run()
	m.Want(hosts, []Issuer{issuer(ca)})
	for _, h := range hosts {
		if st := r.failed(h); !strings.Contains(st.Err.Error(), "503") || time.Until(st.Renewal) < 590*time.Second {
			t.Errorf("%v, next try at %v", st.Err, st.Renewal)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times, want once", n)
	}
}

// forged is an authority whose certificates a test makes.
type forged struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  string
}

func forge(t *testing.T) *forged {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "forged"},
		NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(100000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1, 2, 3},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &forged{key, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (f *forged) chain(t *testing.T, key *ecdsa.PublicKey, names []string, from, to time.Time, usage x509.ExtKeyUsage) string {
	t.Helper()
	if from.IsZero() {
		from = time.Now().Add(-time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, f.cert, key, f.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + f.pem
}
