package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern"
)

func TestSessionsAreBounded(t *testing.T) {
	s := openSessions(nil, discard)
	now := time.Now()
	first := s.start(session{Host: "a.test", Person: "u1"}, now)
	used := s.start(session{Host: "a.test", Person: "u1"}, now)
	other := s.start(session{Host: "b.test", Person: "u1"}, now)
	for i := range 3 * maxOwnSessions {
		at := now.Add(time.Duration(i) * time.Second)
		s.enter(secretHash(used), at)
		s.leave(secretHash(used), at)
		s.start(session{Host: "a.test", Person: "u1"}, at)
	}
	now = now.Add(2 * time.Minute)
	if n := s.count(); n != maxOwnSessions+1 {
		t.Errorf("%d sessions of one person, want %d", n, maxOwnSessions+1)
	}
	for secret, want := range map[string]bool{first: false, used: true} {
		if _, ok := s.find("a.test", secret, now); ok != want {
			t.Errorf("found %v, want %v", ok, want)
		}
	}
	if _, ok := s.find("b.test", other, now); !ok {
		t.Error("the session at another host is gone")
	}
	for i := range maxSessions + 100 {
		s.start(session{Host: "a.test", Person: fmt.Sprint("p", i)}, now)
	}
	if n := s.count(); n != maxSessions {
		t.Errorf("%d sessions, want %d", n, maxSessions)
	}
}

// What is kept survives a restart, and what ended does not come back.
func TestSessionsAreKept(t *testing.T) {
	dir := newDataDir(t)
	now := time.Now().UTC().Truncate(time.Second)
	s := openSessions(dir, discard)
	in := session{
		Host: "a.test", Person: "u1", Proof: proof{Issuer: "https://i.test", Passkey: "k"}, SID: "sid", Since: now.Add(-time.Minute),
		Methods: []string{"pwd"}, Pinned: &postern.Person{ID: "u1", Login: "ann", Role: "member"},
	}
	secret, gone := s.start(in, now), s.start(session{Host: "a.test", Person: "u2"}, now)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.end(secretHash(gone)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir.Path(sessionFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) {
		t.Error("the secret is on disk")
	}
	if info, err := os.Stat(dir.Path(sessionFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	again := openSessions(dir, discard)
	got, ok := again.find("a.test", secret, now.Add(time.Minute))
	if !ok || got.Person != "u1" || got.Proof != in.Proof || got.SID != "sid" || !got.Since.Equal(in.Since) || got.Pinned == nil || !got.Pinned.Equal(*in.Pinned) {
		t.Errorf("after a restart: %+v, %v", got, ok)
	}
	if _, ok := again.find("a.test", gone, now); ok || again.count() != 1 {
		t.Error("what ended came back")
	}
	if _, ok := again.find("b.test", secret, now); ok {
		t.Error("the session is good at another host")
	}
	write(t, dir.Path(sessionFile), []byte("nonsense"))
	if n := openSessions(dir, discard).count(); n != 0 {
		t.Errorf("nonsense holds %d sessions", n)
	}
}

// Not every request writes to the disk, and no sign-in is lost for long.
func TestSessionsAreWrittenNowAndThen(t *testing.T) {
	dir := newDataDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := openSessions(dir, discard)
		ended := make(chan error, 1)
		go func() { ended <- s.run(t.Context()) }()
		onDisk := func() string {
			synctest.Wait()
			text, err := os.ReadFile(dir.Path(sessionFile))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		kept := func() int { return openSessions(dir, discard).count() }
		secret := s.start(session{Host: "a.test", Person: "u1"}, time.Now())
		s.start(session{Host: "a.test", Person: "u2"}, time.Now())
		<-time.After(3 * sessionWrite) // once for each that was started, at most
		first := onDisk()
		if kept() != 2 {
			t.Fatalf("%d sessions on disk after %v", kept(), sessionWrite)
		}
		for range 50 {
			s.enter(secretHash(secret), time.Now())
			s.leave(secretHash(secret), time.Now())
			<-time.After(time.Second)
		}
		if onDisk() != first {
			t.Error("uses are written at once")
		}
		<-time.After(sessionFlush)
		if onDisk() == first {
			t.Error("uses are never written")
		}
		s.prune(func(in session) bool { return in.Person != "u2" }, time.Now())
		<-time.After(sessionWrite)
		synctest.Wait()
		if kept() != 1 {
			t.Error("what ended is kept")
		}
	})
}

func TestSealer(t *testing.T) {
	dir := newDataDir(t)
	s, err := openSealer(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := s.seal("a", map[string]int{"x": 1})
	again, err := openSealer(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]int
	if err := again.open("a", text, &got); err != nil || got["x"] != 1 {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	for name, bad := range map[string]error{
		"another purpose": again.open("b", text, &got),
		"another shape":   again.open("a", s.seal("a", "x"), &got),
	} {
		if bad == nil {
			t.Errorf("%s: it opens", name)
		}
	}
	write(t, dir.Path(sealFile), []byte("short"))
	fresh, err := openSealer(dir)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.open("a", text, &got) == nil {
		t.Error("another key opens it")
	}
	if one, other := s.seal("a", 1), s.seal("a", 1); one == other {
		t.Error("two seals of one text are the same")
	}
}

// No request waits for the disk, and whoever ends something does.
func TestSlowDisk(t *testing.T) {
	now := time.Now()
	tests := []struct {
		name string
		// make returns what keeps requests waiting, something that they ask, and a
		// change that is to be on disk when it returns.
		make func(t *testing.T) (writing *sync.Mutex, ask func() bool, change func() error)
	}{
		{"a session ends", func(t *testing.T) (*sync.Mutex, func() bool, func() error) {
			s := openSessions(newDataDir(t), discard)
			hash := secretHash(s.start(session{Host: "a.test", Person: "u1"}, now))
			return &s.writing, func() bool { return !s.alive(hash, now) }, func() error { return s.end(hash) }
		}},
		{"a token is revoked", func(t *testing.T) (*sync.Mutex, func() bool, func() error) {
			p, _ := newPATs(t)
			made, err := p.create(patWish("backup"), patNow)
			if err != nil {
				t.Fatal(err)
			}
			return &p.writing, func() bool { return p.alive(made.Hash, patNow) }, func() error { return p.revoke(made.Host, "", made.Owner, made.ID) }
		}},
		{"a passkey is invited", func(t *testing.T) (*sync.Mutex, func() bool, func() error) {
			b := newBench(t)
			owner := passkeyOwner{Host: "a.test", Login: "ann", Person: "u-ann"}
			return &b.keys.writing, func() bool { return !b.keys.holds(owner, "k") }, func() error {
				_, _, err := b.keys.invite([]passkeyOwner{owner}, b.now)
				return err
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			writing, ask, change := tt.make(t)
			writing.Lock()
			done := make(chan error, 1)
			var wg sync.WaitGroup
			wg.Go(func() { done <- change() })
			await(t, "an answer while the disk is busy", ask)
			select {
			case err := <-done:
				t.Errorf("the change is done before it is on disk: %v", err)
			default:
			}
			writing.Unlock()
			wg.Wait()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// A session whose end could not be written is ended on disk by the next write.
func TestSessionEndIsTriedAgain(t *testing.T) {
	dir := newDataDir(t)
	s := openSessions(dir, discard)
	hash := secretHash(s.start(session{Host: "a.test", Person: "u1"}, time.Now()))
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	file := dir.Path(sessionFile)
	if err := os.Rename(file, file+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if s.end(hash) == nil {
		t.Fatal("the end is on disk, where it cannot be")
	}
	if err := errors.Join(os.RemoveAll(file), os.Rename(file+".old", file)); err != nil {
		t.Fatal(err)
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	if n := openSessions(dir, discard).count(); n != 0 {
		t.Errorf("a restart brings %d sessions back", n)
	}
}
