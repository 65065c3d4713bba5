package member

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern"
	"postern/internal/datadir"
	"postern/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeCoordinator speaks the member's half of the control protocol, with real
// TLS and real proofs, and lets a test decide what it answers.
type fakeCoordinator struct {
	*httptest.Server
	root  postern.RootHash
	ca    *x509.Certificate
	caKey crypto.Signer
	wg    postern.WireGuardPrivate

	mu      sync.Mutex
	token   postern.Token
	enroll  func(postern.EnrollRequest) (any, int) // nil: enrols
	stream  func(w io.Writer, send func(postern.MapMessage)) *postern.Problem
	seen    []postern.IdentityPublic // identities that enrolled
	renewed int
	key     postern.KeyRequest // the last that was proven
}

func newFakeCoordinator(t *testing.T) *fakeCoordinator {
	f := &fakeCoordinator{wg: postern.NewWireGuardPrivate()}
	caKey, ca := makeCert(t, nil, nil, nil, x509.ExtKeyUsageAny, time.Hour)
	name := identity.Name{Deployment: "d", Role: postern.RoleCoordinator}
	key, leaf := makeCert(t, caKey, ca, name.URI(), x509.ExtKeyUsageServerAuth, time.Hour)
	f.ca, f.caKey, f.root = ca, caKey, identity.HashRoot(ca)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+postern.PathEnroll, func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, postern.Challenge{WireGuard: f.wg.Public()})
	})
	mux.HandleFunc("POST "+postern.PathEnroll, f.serveEnroll)
	mux.HandleFunc("GET "+postern.PathMap, f.serveMap)
	mux.HandleFunc("GET "+postern.PathKey, func(w http.ResponseWriter, r *http.Request) {
		answer(w, 200, postern.Challenge{WireGuard: f.wg.Public()})
	})
	mux.HandleFunc("POST "+postern.PathKey, f.serveKey)
	mux.HandleFunc("POST "+postern.PathRenew, func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.renewed++
		f.mu.Unlock()
		answer(w, 200, f.enrollment(t, postern.IdentityPublic(r.TLS.PeerCertificates[0].PublicKey.(ed25519.PublicKey)), time.Hour))
	})
	f.Server = httptest.NewUnstartedServer(mux)
	f.Config.ErrorLog = nil
	f.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key}},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	f.EnableHTTP2 = true
	f.StartTLS()
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	f.token = postern.NewToken(postern.JoinToken, f.root, f.URL)
	return f
}

// makeCert makes an Ed25519 certificate; a nil parent means itself.
func makeCert(t *testing.T, parentKey crypto.Signer, parent *x509.Certificate, name *url.URL, use x509.ExtKeyUsage, left time.Duration) (crypto.Signer, *x509.Certificate) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := signCert(t, key.Public(), parentKey, parent, name, use, left)
	if parent == nil {
		cert = signCert(t, key.Public(), key, nil, nil, use, left)
	}
	return key, cert
}

func signCert(t *testing.T, pub crypto.PublicKey, parentKey crypto.Signer, parent *x509.Certificate, name *url.URL, use x509.ExtKeyUsage, left time.Duration) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left),
		ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	if name != nil {
		template.URIs = []*url.URL{name}
	} else {
		template.IsCA, template.BasicConstraintsValid = true, true
	}
	if parentKey == nil {
		return nil
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (f *fakeCoordinator) enrollment(t *testing.T, key postern.IdentityPublic, left time.Duration) postern.Enrollment {
	name := identity.Name{Deployment: "d", Role: postern.RoleNode, ID: "n1"}
	cert := signCert(t, key.Key(), f.caKey, f.ca, name.URI(), x509.ExtKeyUsageClientAuth, left)
	return postern.Enrollment{
		Deployment: "d", ID: "n1", Name: "office", Tenant: "acme", Address: netip.MustParseAddr("fd00::1"),
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
	}
}

func (f *fakeCoordinator) serveEnroll(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var req postern.EnrollRequest
	if err := json.Unmarshal(body, &req); err != nil {
		answer(w, 400, postern.NewProblem(400, postern.CodeInvalid, err.Error(), ""))
		return
	}
	binding, err := r.TLS.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		panic(err)
	}
	message := postern.EnrollMessage(binding, body)
	shared, err := f.wg.Shared(req.WireGuard)
	if err != nil {
		panic(err)
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write(message)
	proof := func(header string) []byte {
		b, _ := base64.StdEncoding.DecodeString(r.Header.Get(header))
		return b
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !ed25519.Verify(f.token.Public().Key(), message, proof(postern.HeaderTokenSignature)) ||
		!ed25519.Verify(req.Identity.Key(), message, proof(postern.HeaderIdentitySignature)) ||
		!hmac.Equal(mac.Sum(nil), proof(postern.HeaderWireGuardProof)) {
		answer(w, 401, postern.NewProblem(401, postern.CodeProof, "a proof is wrong", ""))
		return
	}
	f.seen = append(f.seen, req.Identity)
	if f.enroll != nil {
		v, status := f.enroll(req)
		answer(w, status, v)
		return
	}
	answer(w, 200, f.enrollment(&testing.T{}, req.Identity, time.Hour))
}

func (f *fakeCoordinator) serveKey(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var req postern.KeyRequest
	json.Unmarshal(body, &req)
	binding, _ := r.TLS.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	shared, err := f.wg.Shared(req.WireGuard)
	mac := hmac.New(sha256.New, shared)
	mac.Write(postern.KeyMessage(binding, body))
	proof, _ := base64.StdEncoding.DecodeString(r.Header.Get(postern.HeaderWireGuardProof))
	if err != nil || len(r.TLS.PeerCertificates) == 0 || !hmac.Equal(proof, mac.Sum(nil)) {
		answer(w, 401, postern.NewProblem(401, postern.CodeProof, "wrong proof", ""))
		return
	}
	f.mu.Lock()
	f.key = req
	f.mu.Unlock()
	answer(w, 200, struct{}{})
}

func (f *fakeCoordinator) serveMap(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	stream := f.stream
	f.mu.Unlock()
	enc := json.NewEncoder(w)
	problem := stream(w, func(msg postern.MapMessage) {
		enc.Encode(msg)
		http.NewResponseController(w).Flush()
	})
	if problem != nil {
		answer(w, problem.Status, problem)
		return
	}
	<-r.Context().Done()
}

func (f *fakeCoordinator) streams(fn func(w io.Writer, send func(postern.MapMessage)) *postern.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stream = fn
}

func openDir(t *testing.T) *datadir.Dir {
	t.Helper()
	dir, err := datadir.Open(t.TempDir(), postern.RoleNode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func join(t *testing.T, f *fakeCoordinator, dir *datadir.Dir) (*Identity, error) {
	t.Helper()
	return Join(t.Context(), dir, nil, f.token, postern.RoleNode, "office", ThisHost("pc", "test"))
}

func TestJoin(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotJoined) {
		t.Fatalf("before: got %v, want ErrNotJoined", err)
	}
	id, err := join(t, f, dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadIdentity(dir)
	if err != nil || !reflect.DeepEqual(again, id) {
		t.Errorf("read back %+v, %v, want %+v", again, err, id)
	}
	if _, err := join(t, f, dir); !errors.Is(err, ErrJoined) {
		t.Errorf("second join: got %v, want ErrJoined", err)
	}
}

// A join whose answer was lost goes on with the same keys, or the single use of
// its token would be gone.
func TestJoinAgainAfterALostAnswer(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	lost := true
	f.enroll = func(req postern.EnrollRequest) (any, int) {
		if lost {
			lost = false
			return "gone", 502
		}
		return f.enrollment(t, req.Identity, time.Hour), 200
	}
	if _, err := join(t, f, dir); err == nil {
		t.Fatal("the first answer was lost, and the join succeeded")
	}
	if _, err := join(t, f, dir); err != nil {
		t.Fatal(err)
	}
	if len(f.seen) != 2 || f.seen[0] != f.seen[1] {
		t.Errorf("the coordinator saw identities %v, want the same one twice", f.seen)
	}
}

func TestJoinRefused(t *testing.T) {
	f := newFakeCoordinator(t)
	other := newFakeCoordinator(t)
	used := postern.NewProblem(409, postern.CodeTokenUsed, "the token was used", "make another")
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for _, tt := range []struct {
		name  string
		token postern.Token
		check func(error) bool
	}{
		{"by the coordinator", f.token, func(err error) bool {
			var p *postern.Problem
			return errors.As(err, &p) && p.Code == postern.CodeTokenUsed && p.Hint == used.Hint
		}},
		{"an admin token", postern.NewToken(postern.AdminToken, f.root, f.URL), func(err error) bool {
			return errors.Is(err, postern.ErrToken)
		}},
		{"another deployment's address", postern.NewToken(postern.JoinToken, other.root, f.URL), func(err error) bool {
			return errors.Is(err, identity.ErrWrongRoot)
		}},
		{"nobody there", postern.NewToken(postern.JoinToken, f.root, "https://"+dead.Addr().String()), func(err error) bool {
			return errors.Is(err, ErrUnreachable)
		}},
		{"a seed of somebody's invention", postern.NewToken(postern.JoinToken, f.root, f.URL), func(err error) bool {
			var p *postern.Problem
			return errors.As(err, &p) && p.Code == postern.CodeProof
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.enroll = func(postern.EnrollRequest) (any, int) { return used, used.Status }
			dir := openDir(t)
			_, err := Join(t.Context(), dir, nil, tt.token, postern.RoleNode, "", postern.Host{})
			if !tt.check(err) {
				t.Errorf("got %v", err)
			}
			if _, err := LoadIdentity(dir); !errors.Is(err, ErrNotJoined) {
				t.Errorf("afterwards: got %v, want ErrNotJoined", err)
			}
		})
	}
}

// The second of two addresses is tried when the first does not answer.
func TestJoinByTheSecondAddress(t *testing.T) {
	f := newFakeCoordinator(t)
	f.token.URLs = []string{"https://127.0.0.1:1", f.URL}
	if _, err := join(t, f, openDir(t)); err != nil {
		t.Error(err)
	}
}

func section(tenant string, version uint64) *postern.Section {
	if tenant == "" {
		return &postern.Section{Version: version, Deployment: &postern.Deployment{ID: "d", Base: "apps.example.com"}}
	}
	return &postern.Section{Tenant: tenant, Version: version}
}

// follow runs Follow with no waits between streams, and gives what it applied.
func follow(t *testing.T, f *fakeCoordinator, dir *datadir.Dir) (maps <-chan postern.Map, result <-chan error, c *Client) {
	t.Helper()
	id, err := LoadIdentity(dir)
	if errors.Is(err, ErrNotJoined) {
		id, err = join(t, f, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err = NewClient(dir, id, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.backoff = func(int) time.Duration { return time.Millisecond }
	ctx, cancel := context.WithCancel(t.Context())
	applied, done, ended := make(chan postern.Map, 100), make(chan error, 1), make(chan struct{})
	apply := func(m postern.Map) { applied <- m }
	go func() {
		defer close(ended)
		done <- c.Follow(ctx, c.Resume(apply), apply)
	}()
	t.Cleanup(func() { cancel(); <-ended; c.Close() })
	return applied, done, c
}

func tenants(m postern.Map) string {
	var names []string
	for _, name := range []string{"", "acme", "globex", "initech"} {
		if _, ok := m.Sections[name]; ok {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

func TestFollow(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	more := make(chan postern.MapMessage)
	f.streams(func(_ io.Writer, send func(postern.MapMessage)) *postern.Problem {
		send(postern.MapMessage{Version: 4, Section: section("", 1)})
		send(postern.MapMessage{Version: 4, Section: section("acme", 2)})
		send(postern.MapMessage{Version: 4, Section: section("globex", 4), Synced: true})
		send(postern.MapMessage{Version: 4})
		for msg := range more {
			send(msg)
		}
		return nil
	})
	applied, _, c := follow(t, f, dir)
	if m := <-applied; tenants(m) != ",acme,globex" || m.Version != 4 {
		t.Errorf("first map: version %d with %q", m.Version, tenants(m))
	}
	more <- postern.MapMessage{Version: 5, Section: section("acme", 5)}
	if m := <-applied; m.Sections["acme"].Version != 5 {
		t.Errorf("second map: %+v", m)
	}
	more <- postern.MapMessage{Version: 6, Removed: "globex"}
	last := <-applied
	if tenants(last) != ",acme" || last.Version != 6 {
		t.Errorf("third map: version %d with %q", last.Version, tenants(last))
	}
	close(more)
	if !c.Link().Up {
		t.Error("the link is not up")
	}
	if kept, err := LoadMap(dir); err != nil || !reflect.DeepEqual(kept, last) {
		t.Errorf("on disk %+v, %v, want %+v", kept, err, last)
	}
}

// The coordinator's clock is the one that it tells, however far it is from this
// machine's; an old one that does not tell changes nothing.
func TestNow(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	more := make(chan postern.MapMessage)
	f.streams(func(_ io.Writer, send func(postern.MapMessage)) *postern.Problem {
		for msg := range more {
			send(msg)
		}
		return nil
	})
	applied, _, c := follow(t, f, dir)
	defer close(more)
	near := func(what string, want time.Time) {
		t.Helper()
		if off := c.Now().Sub(want); off < 0 || off > time.Minute {
			t.Errorf("%s: %v off", what, off)
		}
	}
	near("before it said anything", time.Now().Add(-time.Second))
	theirs := time.Now().Add(-3 * time.Hour)
	more <- postern.MapMessage{Version: 1, Section: section("", 1), Synced: true, Time: theirs}
	<-applied
	near("behind", theirs)
	more <- postern.MapMessage{Version: 2, Section: section("", 2)}
	<-applied
	near("after a line without a time", theirs)
	theirs = time.Now().Add(5 * time.Hour)
	more <- postern.MapMessage{Version: 2, Time: theirs}
	more <- postern.MapMessage{Version: 3, Section: section("", 3)}
	<-applied
	near("ahead, told by a heartbeat", theirs)
}

// Lines that came together are one piece of news: each costs a write of the
// whole map, and a gateway's is long.
func TestFollowTakesLinesTogether(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	const changes = 100
	begin := make(chan bool)
	f.streams(func(w io.Writer, send func(postern.MapMessage)) *postern.Problem {
		send(postern.MapMessage{Version: 1, Section: section("", 1), Synced: true})
		<-begin
		var lines bytes.Buffer
		for n := range uint64(changes) {
			json.NewEncoder(&lines).Encode(postern.MapMessage{Version: 2 + n, Section: section(fmt.Sprintf("t%d", n%7), 2+n)})
		}
		lines.WriteString("no line\n")
		w.Write(lines.Bytes())
		return nil
	})
	applied, _, _ := follow(t, f, dir)
	<-applied
	close(begin)
	times := 0
	for last := (postern.Map{}); last.Version != 1+changes; times++ {
		if last = <-applied; len(last.Sections) > 8 {
			t.Fatalf("sections: %q", tenants(last))
		}
		if kept, err := LoadMap(dir); err != nil || kept.Version < last.Version {
			t.Fatalf("version %d was applied, and on disk is %d, %v", last.Version, kept.Version, err)
		}
	}
	if times > changes/4 {
		t.Errorf("applied %d times for %d lines", times, changes)
	}
}

// A stream that breaks is opened again; until it is in sync nobody is shown
// half a map, and what went missing in between is gone afterwards.
func TestFollowAgain(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	turn := 0
	f.streams(func(w io.Writer, send func(postern.MapMessage)) *postern.Problem {
		turn++
		switch turn {
		case 1:
			send(postern.MapMessage{Version: 3, Section: section("", 1)})
			send(postern.MapMessage{Version: 3, Section: section("acme", 2)})
			send(postern.MapMessage{Version: 3, Section: section("globex", 3), Synced: true})
			panic(http.ErrAbortHandler)
		case 2:
			send(postern.MapMessage{Version: 9, Section: section("initech", 9)})
			panic(http.ErrAbortHandler)
		case 3:
			io.WriteString(w, "{\"version\":9,\"section\":{\"tenant\":\"NOT A LABEL\",\"version\":9}}\n")
			panic(http.ErrAbortHandler)
		}
		send(postern.MapMessage{Version: 9, Section: section("", 1)})
		send(postern.MapMessage{Version: 9, Section: section("globex", 3), Synced: true})
		return nil
	})
	applied, _, _ := follow(t, f, dir)
	if m := <-applied; tenants(m) != ",acme,globex" {
		t.Errorf("first map has %q", tenants(m))
	}
	if m := <-applied; tenants(m) != ",globex" || m.Version != 9 {
		t.Errorf("second map: version %d with %q", m.Version, tenants(m))
	}
}

func TestFollowRefusesAnOlderMap(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	held := postern.Map{Version: 7, Sections: map[string]postern.Section{"": *section("", 7)}}
	if err := dir.WriteJSON(mapFile, held); err != nil {
		t.Fatal(err)
	}
	tries := make(chan int, 100)
	f.streams(func(_ io.Writer, send func(postern.MapMessage)) *postern.Problem {
		tries <- 1
		send(postern.MapMessage{Version: 6, Section: section("", 6), Synced: true})
		return nil
	})
	applied, _, c := follow(t, f, dir)
	if m := <-applied; m.Version != 7 {
		t.Errorf("the map on disk has version %d, want 7", m.Version)
	}
	<-tries
	<-tries // it asks again
	if len(applied) != 0 {
		t.Errorf("the older map was applied: %+v", <-applied)
	}
	if link := c.Link(); link.Up || !errors.Is(link.Err, postern.ErrOldMap) {
		t.Errorf("link is %+v, want ErrOldMap", link)
	}
	if kept, err := LoadMap(dir); err != nil || kept.Version != 7 {
		t.Errorf("on disk: version %d, %v", kept.Version, err)
	}
}

func TestFollowEndsWhenRemoved(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	if err := dir.WriteJSON(mapFile, postern.Map{Version: 7, Sections: map[string]postern.Section{"": *section("", 7)}}); err != nil {
		t.Fatal(err)
	}
	f.streams(func(io.Writer, func(postern.MapMessage)) *postern.Problem {
		return postern.NewProblem(403, postern.CodeRevoked, "node office was removed", "")
	})
	_, done, _ := follow(t, f, dir)
	if err := <-done; !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), "node office was removed") {
		t.Errorf("got %v, want ErrRemoved with the coordinator's words", err)
	}
	if m, err := LoadMap(dir); err != nil || m.Version != 0 {
		t.Errorf("the map is still on disk: %+v, %v", m, err)
	}
}

func TestCertificateIsRenewed(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	f.enroll = func(req postern.EnrollRequest) (any, int) {
		return f.enrollment(t, req.Identity, time.Minute), 200 // of an hour and a minute
	}
	f.streams(func(_ io.Writer, send func(postern.MapMessage)) *postern.Problem {
		send(postern.MapMessage{Version: 1, Section: section("", 1), Synced: true})
		return nil
	})
	if _, err := join(t, f, dir); err != nil {
		t.Fatal(err)
	}
	before, _ := LoadIdentity(dir)
	applied, _, _ := follow(t, f, dir)
	<-applied
	eventually(t, func() bool {
		now, err := LoadIdentity(dir)
		return err == nil && string(now.Enrollment.Certificate) != string(before.Enrollment.Certificate) && now.Key == before.Key
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.renewed != 1 {
		t.Errorf("renewed %d times, want once", f.renewed)
	}
}

// Others read the membership while its certificate is being renewed.
func TestRenewalLeavesTheMembershipAlone(t *testing.T) {
	f, dir := newFakeCoordinator(t), openDir(t)
	f.enroll = func(req postern.EnrollRequest) (any, int) {
		return f.enrollment(t, req.Identity, time.Minute), 200
	}
	id, err := join(t, f, dir)
	if err != nil {
		t.Fatal(err)
	}
	before := string(id.Enrollment.Certificate)
	c, err := NewClient(dir, id, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.renewNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept, err := LoadIdentity(dir); err != nil || string(kept.Enrollment.Certificate) == before {
		t.Errorf("on disk: not renewed, %v", err)
	}
	if string(id.Enrollment.Certificate) != before {
		t.Error("the caller's membership was written to")
	}
}

// eventually polls until ok, for at most ten seconds.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("it did not come true in ten seconds")
		case <-tick.C:
		}
	}
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	for failures := range 50 {
		limit := min(maxBackoff, minBackoff<<min(failures, 5)) + minBackoff/10
		for range 50 {
			if got := backoff(failures); got <= 0 || got > limit {
				t.Fatalf("backoff(%d) = %v, want up to %v", failures, got, limit)
			}
		}
	}
}

func TestPeers(t *testing.T) {
	m := postern.Map{Sections: map[string]postern.Section{
		"": {Deployment: &postern.Deployment{Gateways: []postern.Gateway{
			{Name: "gw1", Address: netip.MustParseAddr("fd00::1"), WireGuard: postern.WireGuardPublic{1}, Endpoint: "gw1.localhost:51820"},
			{Name: "gw2", Address: netip.MustParseAddr("fd00::2"), WireGuard: postern.WireGuardPublic{2}},
			{Name: "gw3", Address: netip.MustParseAddr("fd00::3"), WireGuard: postern.WireGuardPublic{3}, Endpoint: "127.0.0.1:x"},
			{Name: "gw4", Address: netip.MustParseAddr("fd00::4"), WireGuard: postern.WireGuardPublic{4}, Endpoint: "192.0.2.4:51820"},
		}}},
		"acme": {Tenant: "acme", Nodes: []postern.Node{{Address: netip.MustParseAddr("fd00::9"), WireGuard: postern.WireGuardPublic{9}}}},
	}}
	if peers := GatewayPeers(m, nil, 25*time.Second); len(peers) != 1 || peers[0].Endpoint != netip.MustParseAddrPort("192.0.2.4:51820") {
		t.Errorf("before anything was looked up: got %+v", peers)
	}
	at, err := LookUp(t.Context(), m, nil)
	if err == nil || !strings.Contains(err.Error(), `"gw3"`) {
		t.Errorf("got %v", err)
	}
	peers := GatewayPeers(m, at, 25*time.Second)
	if len(peers) != 3 {
		t.Fatalf("got %+v", peers)
	}
	if got, want := peers[0].Endpoint, netip.MustParseAddrPort("127.0.0.1:51820"); got != want {
		t.Errorf("endpoint %v, want %v", got, want)
	}
	if peers[1].Address != netip.MustParseAddr("fd00::3") || peers[1].Endpoint.IsValid() || peers[1].Keepalive != 25*time.Second {
		t.Errorf("got %+v", peers)
	}
	before := Lookups{"127.0.0.1:x": netip.MustParseAddrPort("192.0.2.3:51820"), "gw1.localhost:51820": netip.MustParseAddrPort("192.0.2.1:51820")}
	at, err = LookUp(t.Context(), m, before)
	if peers := GatewayPeers(m, at, 25*time.Second); err == nil || len(peers) != 3 || peers[0].Endpoint != netip.MustParseAddrPort("127.0.0.1:51820") ||
		peers[1].Endpoint != before["127.0.0.1:x"] {
		t.Errorf("looked up again: got %+v, %v; what could not be is where it was", peers, err)
	}
	if nodes := NodePeers(m); len(nodes) != 1 || nodes[0].Keepalive != 0 || nodes[0].Address != netip.MustParseAddr("fd00::9") {
		t.Errorf("got %+v", nodes)
	}
}

func TestEndpoints(t *testing.T) {
	dir := openDir(t)
	if got, err := LoadEndpoints(dir); len(got) != 0 || err != nil {
		t.Errorf("in a new directory: got %v, %v", got, err)
	}
	want := Endpoints{{1}: netip.MustParseAddrPort("192.0.2.1:51820"), {2}: netip.MustParseAddrPort("[2001:db8::1]:4711")}
	if err := want.Save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadEndpoints(dir); !maps.Equal(got, want) || err != nil {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
