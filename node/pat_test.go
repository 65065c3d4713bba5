package node

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
	"postern/internal/datadir"
)

func TestPATText(t *testing.T) {
	secret := newPATSecret()
	text := secret.text()
	if got, err := parsePAT(text); err != nil || got != secret {
		t.Errorf("parse what was made: %v", err)
	}
	if len(text) != patChars || !strings.HasPrefix(text, "pst_pat_") {
		t.Errorf("a token has %d characters and starts with %.8s", len(text), text)
	}
	for _, shown := range []string{fmt.Sprint(secret), fmt.Sprintf("%#v", secret), fmt.Sprintf("%+v", secret), secret.LogValue().String()} {
		if strings.Contains(shown, text[len(tokenPrefix):][:8]) {
			t.Errorf("a token shows itself as %q", shown)
		}
	}

	sealed := func(s string) string { return fmt.Sprintf("%s_%08x", s, crc32.ChecksumIEEE([]byte(s))) }
	middle := text[len(tokenPrefix) : len(text)-9]
	tests := []struct{ name, text, want string }{
		{"empty", "", "does not start"},
		{"a join token", "pstjoin1_abc_00000000", "does not start"},
		{"upper case", strings.ToUpper(text), "does not start"},
		{"the prefix", tokenPrefix, "characters"},
		{"cut short", text[:len(text)-1], "characters"},
		{"something behind it", text + "x", "characters"},
		{"one letter changed", text[:20] + string(text[20]^1) + text[21:], "checksum"},
		{"checksum in upper case", text[:len(text)-8] + strings.Repeat("F", 8), "checksum"},
		{"not base64url", sealed(tokenPrefix + "+" + middle[1:]), "base64url"},
		{"line break", sealed(tokenPrefix + middle[:41] + "A\n"), "base64url"},
		{"bits that are not used", sealed(tokenPrefix + middle[:42] + "B"), "base64url"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parsePAT(tt.text)
			if !errors.Is(err, errPAT) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want something of %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), middle[5:15]) {
				t.Errorf("the error %v quotes the token", err)
			}
		})
	}
}

func TestPATHashText(t *testing.T) {
	want := newPATSecret().hash()
	text, err := want.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got patHash
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("%s came back as %x, err %v", text, got, err)
	}
	for _, bad := range []string{"", string(text[:42]), string(text) + "A", string(text[:20]) + "\n" + string(text[20:]), strings.Repeat("+", 43)} {
		if err := got.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("UnmarshalText(%q) took it", bad)
		}
	}
}

func FuzzPAT(f *testing.F) {
	f.Add(newPATSecret().text())
	f.Add(tokenPrefix + strings.Repeat("A", 43) + "_00000000")
	f.Add("pst_pat_")
	f.Fuzz(func(t *testing.T, text string) {
		secret, err := parsePAT(text)
		if err != nil {
			if !errors.Is(err, errPAT) || secret != (patSecret{}) {
				t.Errorf("refused with %v and %x", err, secret[:])
			}
			return
		}
		if secret.text() != text {
			t.Errorf("%q is another spelling of %q", text, secret.text())
		}
	})
}

func TestPATScope(t *testing.T) {
	tests := []struct {
		method, header string
		read           bool
	}{
		{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true},
		{"POST", "", false}, {"PUT", "", false}, {"PATCH", "", false}, {"DELETE", "", false},
		{"PROPFIND", "", false}, {"get", "", false}, {"TRACE", "", false},
		{"GET", "Upgrade", false}, {"GET", "X-HTTP-Method-Override", false}, {"GET", "X-Method-Override", false}, {"GET", "X-HTTP-Method", false},
		{"GET", "X_HTTP_METHOD_OVERRIDE", false}, {"GET", "x-Method_Override", false}, {"GET", "X-Http-Methods", true},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(http.MethodGet, "https://a.test/", nil)
		r.Method = tt.method
		if tt.header != "" {
			r.Header.Set(tt.header, "DELETE")
		}
		if got := (pat{Scope: patRead}).permits(r); got != tt.read {
			t.Errorf("read permits %s with %q: %v", tt.method, tt.header, got)
		}
		if !(pat{Scope: patWrite}).permits(r) {
			t.Errorf("write does not permit %s with %q", tt.method, tt.header)
		}
	}
}

var (
	patNow   = time.Unix(1_800_000_000, 0).UTC()
	patOwner = postern.Person{ID: "u-alice", Login: "alice@acme.example", Role: postern.TenantMember}
)

func newPATs(t *testing.T) (*pats, *datadir.Dir) {
	t.Helper()
	dir := newDataDir(t)
	return reopenPATs(t, dir), dir
}

func reopenPATs(t *testing.T, dir *datadir.Dir) *pats {
	t.Helper()
	p, err := openPATs(dir, discard)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func patWish(name string) patRequest {
	return patRequest{Host: "a.test", Owner: patOwner, Name: name, Scope: patRead, Days: 7, Secret: newPATSecret()}
}

func createPAT(t *testing.T, p *pats, q patRequest, now time.Time) pat {
	t.Helper()
	got, err := p.create(q, now)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestPATLife(t *testing.T) {
	p, dir := newPATs(t)
	q := patWish("backup")
	made := createPAT(t, p, q, patNow)
	if want := patNow.AddDate(0, 0, 7); !made.Expires.Equal(want) || !made.Used.IsZero() {
		t.Errorf("made %+v, want it to expire at %v", made, want)
	}
	data, err := os.ReadFile(dir.Path(patFile))
	if err != nil || strings.Contains(string(data), q.Secret.text()[8:40]) {
		t.Errorf("the secret is on disk: %s, %v", data, err)
	}
	p = reopenPATs(t, dir)
	later := patNow.Add(time.Hour)
	if got, err := p.find("a.test", q.Secret, later); err != nil || got.ID != made.ID || got.Owner != "u-alice" || !got.Used.Equal(later) {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	for _, tt := range []struct {
		name, host string
		secret     patSecret
		now        time.Time
	}{
		{"another host", "b.test", q.Secret, later},
		{"another secret", "a.test", newPATSecret(), later},
		{"no secret", "a.test", patSecret{}, later},
		{"expired", "a.test", q.Secret, made.Expires},
	} {
		if _, err := p.find(tt.host, tt.secret, tt.now); !errors.Is(err, errPATRefused) {
			t.Errorf("%s: %v, want %v", tt.name, err, errPATRefused)
		}
	}
	for _, tt := range []struct{ name, host, issuer, owner, id string }{
		{"somebody else's", "a.test", "", "u-bob", made.ID},
		{"another host's", "b.test", "", "u-alice", made.ID},
		{"another issuer's", "a.test", "https://issuer.test", "u-alice", made.ID},
		{"an unknown one", "a.test", "", "u-alice", "nope"},
	} {
		if err := p.revoke(tt.host, tt.issuer, tt.owner, tt.id); !errors.Is(err, errPATAbsent) {
			t.Errorf("revoke %s: %v, want %v", tt.name, err, errPATAbsent)
		}
		if tt.id == made.ID && len(p.list(tt.host, tt.issuer, tt.owner, later)) != 0 {
			t.Errorf("list %s", tt.name)
		}
	}
	if err := p.revoke("a.test", "", "u-alice", made.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := p.find("a.test", q.Secret, later); !errors.Is(err, errPATRefused) {
			t.Errorf("revoked: %v, want %v", err, errPATRefused)
		}
		p = reopenPATs(t, dir)
	}
}

func TestPATList(t *testing.T) {
	p, _ := newPATs(t)
	old := createPAT(t, p, patWish("old"), patNow)
	young := createPAT(t, p, patWish("young"), patNow.Add(time.Hour))
	got := p.list("a.test", "", "u-alice", patNow)
	if len(got) != 2 || got[0].ID != young.ID || got[1].ID != old.ID {
		t.Errorf("listed %+v, want the newest first", got)
	}
	if got := p.list("a.test", "", "u-alice", old.Expires.Add(patKept-time.Minute)); len(got) != 2 {
		t.Errorf("%d are listed before their time is over", len(got))
	}
	if got := p.list("a.test", "", "u-alice", old.Expires.Add(patKept)); len(got) != 1 || got[0].ID != young.ID {
		t.Errorf("listed %+v long after the first expired", got)
	}
}

func TestPATLimits(t *testing.T) {
	p, dir := newPATs(t)
	for i := range maxOwnPATs {
		p.byHash[patHash{byte(i), 1}] = &pat{ID: fmt.Sprint(i), Hash: patHash{byte(i), 1}, Host: "a.test", Owner: "u-alice", Expires: patNow.Add(time.Hour)}
	}
	if _, err := p.create(patWish("one more"), patNow); !errors.Is(err, errPATLimit) {
		t.Errorf("one more: %v, want %v", err, errPATLimit)
	}
	q := patWish("elsewhere")
	q.Host = "b.test"
	createPAT(t, p, q, patNow)
	for i := range maxPATs {
		h := patHash{byte(i), byte(i >> 8), 2}
		p.byHash[h] = &pat{ID: fmt.Sprint("x", i), Hash: h, Host: "c.test", Owner: "u-carol", Expires: patNow.Add(time.Hour)}
	}
	q.Secret = newPATSecret()
	if _, err := p.create(q, patNow); !errors.Is(err, errPATLimit) {
		t.Errorf("one more at this node: %v, want %v", err, errPATLimit)
	}
	// What has expired makes room where there is none.
	if _, err := p.create(q, patNow.Add(time.Hour)); err != nil {
		t.Errorf("when others have expired: %v", err)
	}
	if got := reopenPATs(t, dir); len(got.byHash) != 2 {
		t.Errorf("%d are kept, want 2", len(got.byHash))
	}
}

func TestPATWishes(t *testing.T) {
	tests := []struct {
		name  string
		wish  func(*patRequest)
		wrong bool
	}{
		{"good", func(*patRequest) {}, false},
		{"no name", func(q *patRequest) { q.Name = " " }, true},
		{"a long name", func(q *patRequest) { q.Name = strings.Repeat("ä", maxPATName) }, false},
		{"too long a name", func(q *patRequest) { q.Name = strings.Repeat("ä", maxPATName+1) }, true},
		{"two lines", func(q *patRequest) { q.Name = "a\nb" }, true},
		{"not UTF-8", func(q *patRequest) { q.Name = "\xff" }, true},
		{"no scope", func(q *patRequest) { q.Scope = "" }, true},
		{"another scope", func(q *patRequest) { q.Scope = "admin" }, true},
		{"for ever", func(q *patRequest) { q.Days = 0 }, true},
		{"for longer", func(q *patRequest) { q.Days = 366 }, true},
	}
	for _, tt := range tests {
		q := patWish("backup")
		tt.wish(&q)
		if got := q.wrong(); (got != "") != tt.wrong {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

// Of a pinned issuer's people no map says anything, so the issuer has to have said it.
func TestPATOfAnIssuersPerson(t *testing.T) {
	const issuer = "https://login.acme.example"
	p, dir := newPATs(t)
	q := patWish("backup")
	q.Proof.Issuer, q.Days = issuer, 365
	q.Owner.Groups = []string{"accounting"}
	createPAT(t, p, q, patNow)
	other := patWish("the portal's")
	other.Days = 365
	createPAT(t, p, other, patNow)

	at := patNow.Add(patVouch)
	if got, err := p.find("a.test", q.Secret, at); err != nil || got.Person.Groups[0] != "accounting" {
		t.Errorf("after 30 days: %+v, %v", got, err)
	}
	if _, err := p.find("a.test", q.Secret, at.Add(time.Second)); !errors.Is(err, errPATRefused) {
		t.Errorf("after more than 30 days: %v, want %v", err, errPATRefused)
	}
	if _, err := p.find("a.test", other.Secret, at.Add(time.Second)); err != nil {
		t.Errorf("the portal's after more than 30 days: %v", err)
	}
	q.Owner.Groups = []string{"sales"}
	p.vouch(proof{Issuer: "https://other.example"}, q.Owner, at)
	if _, err := p.find("a.test", q.Secret, at.Add(time.Second)); !errors.Is(err, errPATRefused) {
		t.Errorf("another issuer vouched for it: %v, want %v", err, errPATRefused)
	}
	p.vouch(proof{Issuer: issuer, Rules: "new"}, q.Owner, at)
	if got, err := p.find("a.test", q.Secret, at.Add(patVouch)); err != nil || got.Person.Groups[0] != "sales" || got.Proof.Rules != "new" {
		t.Errorf("when it vouched again: %+v, %v", got, err)
	}
	p.disown(issuer, q.Owner.ID)
	for range 2 {
		if _, err := p.find("a.test", q.Secret, at); !errors.Is(err, errPATRefused) {
			t.Errorf("disowned: %v, want %v", err, errPATRefused)
		}
		p = reopenPATs(t, dir)
	}
}

func TestPATUseIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, dir := newPATs(t)
		q := patWish("backup")
		createPAT(t, p, q, time.Now())
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := p.run(ctx); err != nil {
				t.Error(err)
			}
		})
		used := func() time.Time { return reopenPATs(t, dir).list("a.test", "", "u-alice", time.Now())[0].Used }
		p.find("a.test", q.Secret, time.Now())
		if got := used(); !got.IsZero() {
			t.Errorf("written at once: %v", got)
		}
		<-time.After(patFlush + time.Second)
		synctest.Wait()
		first := used()
		if first.IsZero() {
			t.Error("not written after a while")
		}
		<-time.After(2 * time.Second)
		p.find("a.test", q.Secret, time.Now())
		cancel()
		wg.Wait()
		if got := used(); !got.After(first) {
			t.Errorf("the last use is lost at the end: %v", got)
		}
	})
}
