package acme

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/internal/acme/acmetest"
)

const books = "books.acme.example"

func TestIssue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m := r.run()
	if _, err := m.Get(books); err == nil {
		t.Error("there is a certificate that nobody wanted")
	}
	hosts := []string{books, "mail.acme.example"}
	m.Want(hosts, []Issuer{issuer(ca)})
	for _, h := range hosts {
		cert := r.ready(h)
		l := cert.Leaf
		if len(l.DNSNames) != 1 || l.DNSNames[0] != h {
			t.Errorf("it is for %q, want %q alone", l.DNSNames, h)
		}
		for _, e := range l.Extensions {
			if e.Id.String() == "1.3.6.1.5.5.7.1.24" {
				t.Error("it has to be stapled")
			}
		}
		if err := r.dial(h, ca.Issuing()); err != nil {
			t.Errorf("dial %s: %v", h, err)
		}
		if _, ok := m.Challenge(h); ok {
			t.Errorf("authorities are still expected at %s", h)
		}
		st := m.State(h)
		accounts := m.Accounts()
		if len(accounts) != 1 || accounts[0].Directory != ca.URL || accounts[0].URI == "" || st.Account != accounts[0].URI || st.Issuer != ca.URL {
			t.Errorf("state %+v, accounts %v", st, accounts)
		}
		if st.Renewal.Before(l.NotBefore.Add(24*time.Hour)) || st.Renewal.After(latest(l)) {
			t.Errorf("renewal at %v of what ends at %v", st.Renewal, l.NotAfter)
		}
	}
	if r.awaited.Load() != 2 {
		t.Errorf("handshakes were awaited %d times, want 2", r.awaited.Load())
	}
	if runtime.GOOS == "windows" {
		return
	}
	files := 0
	filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		info, _ := d.Info()
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v", path, info.Mode(), want)
		}
		return nil
	})
	if files != 8 {
		t.Errorf("%d files, want 8", files)
	}
}

// The account can be shown, for a CAA record, before there is an order.
func TestAccountBeforeOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, other := r.ca(acmetest.Options{}), r.ca(acmetest.Options{})
	ca.SetFault(refuse(acmetest.NewOrder, http.StatusForbidden, "caa", "CAA record for acme.example prevents issuance"))
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	st := r.failed(books)
	if len(m.Accounts()) != 1 || st.Account != m.Accounts()[0].URI {
		t.Errorf("accounts %v, state %+v", m.Accounts(), st)
	}
	if want := "urn:ietf:params:acme:error:caa: CAA record for acme.example prevents issuance"; st.Err.Error() != want {
		t.Errorf("got  %q\nwant %q", st.Err, want)
	}
	m.Want([]string{books}, []Issuer{issuer(ca), issuer(other)})
	r.until("both accounts", func() bool { return len(m.Accounts()) == 2 })
}

func TestRestartUsesTheDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	_, first := r.holds(ca)
	state := r.m.State(books)
	before := ca.Requests()

	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	if a := m.Accounts(); len(a) != 1 || a[0].URI != state.Account || len(a[0].CAA) != 1 || a[0].CAA[0] != "ca.example" {
		t.Errorf("accounts %v, want %s at once", a, state.Account)
	}
	second := r.ready(books)
	if !second.Leaf.Equal(first.Leaf) {
		t.Error("it is another certificate")
	}
	r.until("renewal information", func() bool { return m.State(books).Renewal.Equal(state.Renewal) })
	after := ca.Requests()
	for _, resource := range []string{acmetest.NewAccount, acmetest.NewOrder} {
		if after[resource] != before[resource] {
			t.Errorf("%s: %d requests, then %d", resource, before[resource], after[resource])
		}
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m, first := r.holds(ca)
	if err := m.Renew(books); err != nil {
		t.Fatal(err)
	}
	second := r.replaced(books, first)
	if !first.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(second.Leaf.PublicKey) {
		t.Error("the key changed")
	}
	r.until("an order that says what it replaces", func() bool { return ca.Replaced(first.Leaf) })
	if err := m.Renew("unknown.example"); err == nil {
		t.Error("renewed what is not wanted")
	}
}

func TestRenewalInfo(t *testing.T) {
	t.Parallel()
	past := acmetest.Window{Start: time.Now().Add(-2 * time.Hour), End: time.Now().Add(-time.Hour)}
	t.Run("the authority says now", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ca := r.ca(acmetest.Options{})
		var once sync.Once
		ca.SetWindow(func(id string) (w acmetest.Window, ok bool) {
			once.Do(func() { w, ok = past, true })
			return w, ok
		})
		m := r.run()
		m.Want([]string{books}, []Issuer{issuer(ca)})
		r.until("the second certificate", func() bool { return ca.Requests()[acmetest.Certificate] == 2 && m.State(books).Waiting == "" })
		r.ready(books)
		if ca.Requests()[acmetest.NewOrder] != 2 {
			t.Errorf("%d orders, want 2", ca.Requests()[acmetest.NewOrder])
		}
	})
	t.Run("the authority always says now", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ca := r.ca(acmetest.Options{})
		ca.SetWindow(func(string) (acmetest.Window, bool) { return past, true })
		m := r.run()
		m.Want([]string{books}, []Issuer{issuer(ca)})
		r.until("patience", func() bool {
			return ca.Requests()[acmetest.RenewalInfo] == 2 && m.State(books).Renewal.After(time.Now().Add(5*time.Hour))
		})
		if n := ca.Requests()[acmetest.NewOrder]; n != 2 {
			t.Errorf("%d orders, want 2", n)
		}
	})
	t.Run("later, and nonsense", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ca := r.ca(acmetest.Options{Profiles: map[string]time.Duration{"short": 6 * 24 * time.Hour}})
		start := time.Now().Add(24 * time.Hour)
		ca.SetWindow(func(string) (acmetest.Window, bool) {
			return acmetest.Window{Start: start, End: start.Add(time.Hour), RetryAfter: time.Minute}, true
		})
		m := r.run()
		is := issuer(ca)
		is.Profile = "short"
		m.Want([]string{books}, []Issuer{is})
		l := r.ready(books).Leaf
		if life := l.NotAfter.Sub(l.NotBefore); life > 6*24*time.Hour {
			t.Fatalf("it lives for %v", life)
		}
		r.until("the window", func() bool {
			at := m.State(books).Renewal
			return !at.Before(start) && !at.After(start.Add(time.Hour))
		})
		// The window is asked again after a minute, and is none by then.
		ca.SetWindow(func(string) (acmetest.Window, bool) { return acmetest.Window{Start: start, End: start}, true })
		asked := ca.Requests()[acmetest.RenewalInfo]
		r.shift.Store(int64(2 * time.Minute))
		m.Want([]string{books}, []Issuer{is})
		r.until("another question", func() bool { return ca.Requests()[acmetest.RenewalInfo] > asked })
		if at := m.State(books).Renewal; at.Before(start) || at.After(start.Add(time.Hour)) {
			t.Errorf("renewal at %v; what was said before should hold", at)
		}
	})
}

func TestNonces(t *testing.T) {
	t.Parallel()
	for name, percent := range map[string]int{"as Pebble does": 5, "every other": 50} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			ca := r.ca(acmetest.Options{BadNonces: percent})
			r.run().Want([]string{books}, []Issuer{issuer(ca)})
			r.ready(books)
		})
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	const id, hmac = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	const wrong = "AAAAZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	r := newRig(t)
	ca := r.ca(acmetest.Options{Bindings: map[string]string{id: hmac}})
	m := r.run()
	for _, tt := range []struct{ name, id, hmac, want string }{
		{"none", "", "", "urn:ietf:params:acme:error:externalAccountRequired: "},
		{"half", id, "", "key id and its HMAC"},
		{"not base64", id, "!!", "not base64url"},
		{"unknown", "kid-2", hmac, "urn:ietf:params:acme:error:unauthorized: "},
		{"wrong", id, wrong, "urn:ietf:params:acme:error:"},
	} {
		is := issuer(ca)
		is.KeyID, is.HMAC = tt.id, tt.hmac
		m.Want([]string{books}, []Issuer{is})
		r.until(tt.name+": "+tt.want, func() bool {
			err := m.State(books).Err
			return err != nil && strings.Contains(err.Error(), tt.want)
		})
		if len(m.Accounts()) != 0 {
			t.Errorf("%s: accounts %v", tt.name, m.Accounts())
		}
	}
	is := issuer(ca)
	is.KeyID, is.HMAC = id, hmac+"==\n"
	m.Want([]string{books}, []Issuer{is})
	r.ready(books)
	if strings.Contains(r.log.String(), hmac) || strings.Contains(r.log.String(), wrong) {
		t.Error("the HMAC key is in the log")
	}
}

func TestProfile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{Profiles: map[string]time.Duration{"classic": 90 * 24 * time.Hour, "short": 6 * 24 * time.Hour}})
	m := r.run()
	is := issuer(ca)
	is.Profile = "shrot"
	m.Want([]string{books}, []Issuer{is})
	if st := r.failed(books); !strings.Contains(st.Err.Error(), `no profile "shrot"; it offers classic, short`) {
		t.Errorf("got %v", st.Err)
	}
	is.Profile = "short"
	m.Want([]string{books}, []Issuer{is})
	r.ready(books)
}

// Two profiles of one authority are two issuers and one account.
func TestTwoProfiles(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{Profiles: map[string]time.Duration{"short": 6 * 24 * time.Hour}})
	m := r.run()
	first, second := issuer(ca), issuer(ca)
	first.Profile, second.Profile, second.Email = "none", "short", "other@example.com"
	m.Want([]string{books}, []Issuer{first, second})
	r.ready(books)
	if n := ca.Requests()[acmetest.NewAccount]; n != 1 || len(m.Accounts()) != 1 {
		t.Errorf("%d accounts were asked for: %v", n, m.Accounts())
	}
}

// An authority is told a new address, and keeps the account.
func TestEmailChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m := r.run()
	is := issuer(ca)
	m.Want([]string{books}, []Issuer{is})
	first := r.ready(books)
	account := m.Accounts()[0]
	is.Email = "other@example.com"
	m.Want([]string{books}, []Issuer{is})
	m.Renew(books)
	r.replaced(books, first)
	if n := ca.Requests()[acmetest.Account]; n != 1 || !reflect.DeepEqual(m.Accounts()[0], account) {
		t.Errorf("it was told %d times; account %v, then %v", n, account, m.Accounts())
	}
}

// Other issuers get the next certificate, not this one.
func TestIssuersChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca, other := r.ca(acmetest.Options{}), r.ca(acmetest.Options{})
	m, first := r.holds(ca)
	m.Want([]string{books, "mail.acme.example"}, []Issuer{issuer(other)})
	r.ready("mail.acme.example")
	if st := m.State(books); !st.Certificate.Leaf.Equal(first.Leaf) || st.Issuer != ca.URL {
		t.Errorf("issuer %s, want that of the first certificate", st.Issuer)
	}
	m.Renew(books)
	r.replaced(books, first)
	if st := m.State(books); st.Issuer != other.URL {
		t.Errorf("issuer %s, want the new one", st.Issuer)
	}
	// Without issuers, what is held is shown.
	m.Want([]string{books}, nil)
	if _, err := m.Get(books); err != nil {
		t.Error(err)
	}
}

func TestNoWildcards(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m := r.run()
	bad := []string{"*.acme.example", "192.0.2.1", "Books.acme.example", "../../etc/passwd", ""}
	m.Want(append(bad, books), []Issuer{issuer(ca)})
	r.ready(books)
	for _, h := range bad {
		if st := m.State(h); st.Err == nil || st.Certificate != nil || st.Waiting != "" {
			t.Errorf("%q: %+v", h, st)
		}
		if _, err := m.Get(h); err == nil {
			t.Errorf("%q has a certificate", h)
		}
		if err := m.Renew(h); err == nil {
			t.Errorf("%q was renewed", h)
		}
	}
}

// Four orders at a time, and one that hangs leaves the others alone.
func TestManyHosts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	gate := make(chan struct{})
	r.await = func(ctx context.Context, h string) error {
		if h == "h0.acme.example" {
			<-ctx.Done()
		}
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return nil
	}
	var hosts []string
	for i := range 16 {
		hosts = append(hosts, fmt.Sprintf("h%d.acme.example", i))
	}
	m := r.run()
	m.Want(hosts[:1], []Issuer{issuer(ca)})
	r.until("the one that hangs", func() bool { return r.awaited.Load() == 1 })
	m.Want(hosts, []Issuer{issuer(ca)})
	r.until("four orders", func() bool { return r.awaited.Load() >= atOnce })
	waiting := 0
	for _, h := range hosts {
		if m.State(h).Waiting == "its turn" {
			waiting++
		}
	}
	if n := r.awaited.Load(); n != atOnce || waiting != len(hosts)-atOnce {
		t.Errorf("%d orders at the same time, and %d hosts wait their turn", n, waiting)
	}
	close(gate)
	for _, h := range hosts[1:] {
		r.ready(h)
	}
	if st := m.State(hosts[0]); st.Certificate != nil || !strings.Contains(st.Waiting, "handshakes of") {
		t.Errorf("the one that hangs: %+v", st)
	}
	if n := ca.Requests()[acmetest.NewAccount]; n != 1 {
		t.Errorf("%d accounts were asked for, want 1", n)
	}
}

// What nobody wants any more ends, and can be wanted again.
func TestWantWhileOrdering(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	entered := make(chan struct{}, 8)
	var mu sync.Mutex
	stuck := true
	r.await = func(ctx context.Context, h string) error {
		mu.Lock()
		wait := stuck && h == books
		mu.Unlock()
		if wait {
			entered <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	<-entered
	if _, ok := m.Challenge(books); !ok {
		t.Error("the challenge is not there when handshakes are awaited")
	}
	m.Want([]string{"mail.acme.example"}, []Issuer{issuer(ca)})
	r.until("the end of the order", func() bool { return r.settled.Load() >= 1 })
	r.ready("mail.acme.example")
	if st := m.State(books); st != (State{}) {
		t.Errorf("what is not wanted has a state: %+v", st)
	}
	mu.Lock()
	stuck = false
	mu.Unlock()
	m.Want([]string{books, "mail.acme.example"}, []Issuer{issuer(ca)})
	r.ready(books)
}

func TestEndWhileOrdering(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	entered := make(chan struct{}, 8)
	r.await = func(ctx context.Context, h string) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	r.run().Want([]string{books}, []Issuer{issuer(ca)})
	<-entered
	r.end() // waits, and checks that it is settled
	if _, ok := r.m.Challenge(books); ok {
		t.Error("authorities are still expected")
	}
	r.await = func(context.Context, string) error { return errors.New("gateways are not there") }
	r.run().Want([]string{books}, []Issuer{issuer(ca)})
	r.ready(books) // which an error does not stop
	if !strings.Contains(r.log.String(), "gateways are not there") {
		t.Error("the error is not in the log")
	}
}

// An authority that lost our account gets it back, with the same key.
func TestAccountLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ca := r.ca(acmetest.Options{})
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	r.ready(books)
	key, _ := os.ReadFile(m.store.accountFile(ca.URL, ".key"))
	uri := m.Accounts()[0].URI
	var once sync.Once
	ca.SetFault(func(resource string, w http.ResponseWriter, req *http.Request) (done bool) {
		if resource == acmetest.NewOrder {
			once.Do(func() {
				acmetest.Problem(w, http.StatusBadRequest, "accountDoesNotExist", "unknown account")
				done = true
			})
		}
		return done
	})
	first := m.State(books).Certificate
	m.Renew(books)
	r.replaced(books, first)
	after, _ := os.ReadFile(m.store.accountFile(ca.URL, ".key"))
	if string(after) != string(key) || m.Accounts()[0].URI != uri {
		t.Error("it is another account")
	}
}

func TestCAA(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var mu sync.Mutex
	var permitted string
	ca := r.ca(acmetest.Options{CAA: func(h, account string) error {
		mu.Lock()
		defer mu.Unlock()
		if h != books || account != permitted {
			return errors.New("CAA record for " + h + " prevents issuance")
		}
		return nil
	}})
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	st := r.failed(books)
	if want := "urn:ietf:params:acme:error:caa: CAA record for " + books + " prevents issuance"; st.Err.Error() != want {
		t.Errorf("got  %q\nwant %q", st.Err, want)
	}
	mu.Lock()
	permitted = m.Accounts()[0].URI
	mu.Unlock()
	m.Renew(books)
	r.ready(books)
}

// refuse is a Fault: a problem document, where resource is asked for.
func refuse(resource string, status int, kind, detail string) acmetest.Fault {
	return func(got string, w http.ResponseWriter, r *http.Request) bool {
		if got != resource {
			return false
		}
		acmetest.Problem(w, status, kind, detail)
		return true
	}
}
