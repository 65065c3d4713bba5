package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"postern"
	"postern/internal/datadir"
)

// sessionFile keeps the sessions in the data directory.
const sessionFile = "sessions.json"

// Limits of sessions.
const (
	defaultIdle = 30 * time.Minute
	defaultMax  = 12 * time.Hour
	longestMax  = 24 * time.Hour // for which the map tells of sessions that were ended

	maxSessions    = 10000 // at this node
	maxOwnSessions = 32    // of one person at one host

	sessionFlush = time.Minute // between writes of when sessions were used
	sessionWrite = time.Second // between writes of what is more than that
)

// A session is somebody who is signed in at one host name of this node, with one
// browser. It does not change, but for when it was used.
type session struct {
	Hash    string          `json:"hash"` // of the secret that the browser holds; see secretHash
	Host    string          `json:"host"`
	Person  string          `json:"person"` // id
	Pinned  *postern.Person `json:"pinned,omitempty"`
	Proof   proof           `json:"proof,omitzero"`
	SID     string          `json:"sid,omitempty"` // of the session at the portal
	Since   time.Time       `json:"since"`         // when they proved who they are, by the clock of who says so
	Methods []string        `json:"methods,omitempty"`
	Created time.Time       `json:"created"`
	Used    time.Time       `json:"used"` // last; on disk late by sessionFlush at most
}

// credential returns what a request shows that comes with s.
func (s session) credential() *credential {
	return &credential{
		person: s.Person, pinned: s.Pinned, proof: s.Proof, sid: s.SID, since: s.Since, methods: s.Methods, session: s.Hash,
	}
}

// sameSignIn reports whether s and in, which are of one host, began with one and the
// same sign-in, of which the same is told.
func (s session) sameSignIn(in session) bool {
	return s.Person == in.Person && s.SID == in.SID && s.Since.Equal(in.Since) &&
		s.Proof.Issuer == in.Proof.Issuer && s.Proof.Rules == in.Proof.Rules &&
		(s.Pinned == nil) == (in.Pinned == nil) && (s.Pinned == nil || s.Pinned.Equal(*in.Pinned))
}

// newSecret returns 256 random bits in base64url.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// secretHash returns what the node keeps of a secret, which has 256 random bits, so
// that a plain hash of it gives nothing away.
func secretHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sessions are those of a node. Its methods are safe for concurrent use.
type sessions struct {
	dir  *datadir.Dir // nil: nothing is kept
	log  *slog.Logger
	poke chan struct{} // holds one token while there is more to write than uses

	// writing is held while the file is written, and taken before mu: no request
	// waits for the disk.
	writing sync.Mutex

	mu        sync.Mutex
	byHash    map[string]*openSession
	idle, max time.Duration
	used      bool // uses changed since the last write
	dirty     bool // more than uses did
}

// An openSession is a session and how many requests of it are under way.
type openSession struct {
	session
	requests int
}

// openSessions reads the sessions that dir keeps. What cannot be read is nothing
// that people cannot do again.
func openSessions(dir *datadir.Dir, log *slog.Logger) *sessions {
	s := &sessions{dir: dir, log: log, poke: make(chan struct{}, 1), byHash: map[string]*openSession{}, idle: defaultIdle, max: defaultMax}
	if dir == nil {
		return s
	}
	var kept []session
	if err := dir.ReadJSON(sessionFile, &kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("read the sessions; everybody has to sign in again", "err", err)
	}
	for _, k := range kept {
		s.byHash[k.Hash] = &openSession{session: k}
	}
	return s
}

// setLimits changes how long sessions last, those that go on included.
func (s *sessions) setLimits(idle, max time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle, s.max = idle, max
}

// longest returns how long a session may last in all.
func (s *sessions) longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.max
}

// over reports whether the limits have ended o. A request that is under way is use.
// The caller has the lock.
func (s *sessions) over(o *openSession, now time.Time) bool {
	return !now.Before(o.Created.Add(s.max)) || o.requests == 0 && !now.Before(o.Used.Add(s.idle))
}

// start begins in, and returns the secret for the browser. Hash, Created and Used
// are filled in. Who has maxOwnSessions at the host loses the one used least lately.
func (s *sessions) start(in session, now time.Time) (secret string) {
	secret = newSecret()
	in.Hash, in.Created, in.Used = secretHash(secret), now, now
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoom(func(o *openSession) bool { return o.Host == in.Host && o.Person == in.Person }, maxOwnSessions, now)
	s.makeRoom(func(*openSession) bool { return true }, maxSessions, now)
	s.byHash[in.Hash] = &openSession{session: in}
	s.dirty = true
	wake(s.poke)
	return secret
}

// makeRoom has less than limit sessions that match: first those go that are over,
// then those used least lately. The caller has the lock.
func (s *sessions) makeRoom(match func(*openSession) bool, limit int, now time.Time) {
	var held []*openSession
	for _, o := range s.byHash {
		if match(o) {
			held = append(held, o)
		}
	}
	if len(held) < limit {
		return
	}
	slices.SortFunc(held, func(a, b *openSession) int { return a.Used.Compare(b.Used) })
	for i, o := range held {
		if s.over(o, now) || i <= len(held)-limit {
			delete(s.byHash, o.Hash)
		}
	}
}

// find returns the session with that secret at host.
func (s *sessions) find(host, secret string, now time.Time) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byHash[secretHash(secret)]
	if o == nil || o.Host != host || s.over(o, now) {
		return session{}, false
	}
	return o.session, true
}

// alive reports whether the session with that hash goes on.
func (s *sessions) alive(hash string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byHash[hash]
	return o != nil && !s.over(o, now)
}

// enter notes that a request of a session is under way, and leave that it is over.
func (s *sessions) enter(hash string, now time.Time) { s.use(hash, 1, now) }
func (s *sessions) leave(hash string, now time.Time) { s.use(hash, -1, now) }

func (s *sessions) use(hash string, requests int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.byHash[hash]; o != nil {
		o.requests += requests
		o.Used = now
		s.used = true
	}
}

// end ends the session with that hash, and returns when it is gone from the disk
// too. If that fails, a restart of the node brings it back.
func (s *sessions) end(hash string) error {
	s.mu.Lock()
	if s.byHash[hash] != nil {
		delete(s.byHash, hash)
		s.dirty = true
	}
	s.mu.Unlock()
	return s.flush()
}

// raise has the session with that hash go on with the proof that a passkey was used,
// under a new secret: whoever knew the old one before is not let in with it. Its
// limits stay. It reports false if the session is over.
func (s *sessions) raise(hash, passkey string, now time.Time) (secret string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.byHash[hash]
	if o == nil || s.over(o, now) {
		return "", false
	}
	secret = newSecret()
	next := &openSession{session: o.session}
	next.Hash, next.Used, next.Proof.Passkey, next.Methods = secretHash(secret), now, passkey, raised(o.Methods)
	delete(s.byHash, hash)
	s.byHash[next.Hash] = next
	s.dirty = true
	wake(s.poke)
	return secret, true
}

// prune ends the sessions that are over or not good, and returns those.
func (s *sessions) prune(good func(session) bool, now time.Time) (ended []session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, o := range s.byHash {
		if s.over(o, now) || !good(o.session) {
			delete(s.byHash, hash)
			ended = append(ended, o.session)
		}
	}
	if len(ended) > 0 {
		s.dirty = true
		wake(s.poke)
	}
	return ended
}

// count returns how many sessions there are.
func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byHash)
}

// run keeps what is on disk up to date until ctx is done.
func (s *sessions) run(ctx context.Context) error {
	tick := time.NewTicker(sessionFlush)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			s.keep()
			continue
		case <-s.poke:
		}
		// Many that come together are written together.
		select {
		case <-ctx.Done():
		case <-time.After(sessionWrite):
		}
		s.keep()
	}
	return nil
}

func (s *sessions) keep() {
	if err := s.flush(); err != nil {
		s.log.Error("keep the sessions on disk", "err", err)
	}
}

// flush brings to disk what is not there yet, and returns when it is.
func (s *sessions) flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	all, changed := s.changes()
	if !changed || s.dir == nil {
		return nil
	}
	err := s.dir.WriteJSON(sessionFile, all)
	if err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
	return err
}

// changes returns all sessions, which count as written then, and whether that is
// another thing than was written last.
func (s *sessions) changes() (all []session, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty && !s.used {
		return nil, false
	}
	s.used, s.dirty = false, false
	all = make([]session, 0, len(s.byHash))
	for _, hash := range slices.Sorted(maps.Keys(s.byHash)) {
		all = append(all, s.byHash[hash].session)
	}
	return all, true
}
