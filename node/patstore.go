package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"postern"
	"postern/internal/datadir"
)

// patFile keeps the personal access tokens in the data directory.
const patFile = "tokens.json"

// Limits of personal access tokens.
const (
	maxPATs    = 10000 // at this node
	maxOwnPATs = 50    // of one person at one host
	maxPATName = 100   // characters

	patFlush = time.Minute         // between writes of when tokens were used
	patKept  = 30 * 24 * time.Hour // how long an expired one is listed
	patVouch = 30 * 24 * time.Hour // how long one is good after a pinned issuer vouched for its owner
)

// patLives are how many days a token may be made for.
var patLives = []int{7, 30, 90, 365}

var (
	errPATRefused = errors.New("the token is unknown, expired or of another host")
	errPATLimit   = errors.New("there are too many tokens")
	errPATAbsent  = errors.New("there is no such token")
)

// pats are the personal access tokens of a node. Its methods are safe for
// concurrent use.
type pats struct {
	dir *datadir.Dir // nil: nothing is kept
	log *slog.Logger

	// writing is held from a change until it is on disk, and taken before mu: no
	// request waits for the disk.
	writing sync.Mutex

	mu     sync.Mutex
	byHash map[patHash]*pat
	dirty  bool // what can be lost in a crash has changed
}

// openPATs reads the tokens that dir keeps.
func openPATs(dir *datadir.Dir, log *slog.Logger) (*pats, error) {
	p := &pats{dir: dir, log: log, byHash: map[patHash]*pat{}}
	if dir == nil {
		return p, nil
	}
	var kept []*pat
	if err := dir.ReadJSON(patFile, &kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, t := range kept {
		p.byHash[t.Hash] = t
	}
	return p, nil
}

// A patRequest is what somebody wants a token to be.
type patRequest struct {
	Host   string
	Owner  postern.Person
	Proof  proof
	Name   string
	Scope  string
	Days   int // one of patLives
	Secret patSecret
}

// wrong says what is wrong with what a person chose, in a sentence for them; empty
// if nothing is.
func (q patRequest) wrong() string {
	switch {
	case strings.TrimSpace(q.Name) == "":
		return "Give the token a name, such as that of the program that will use it."
	case utf8.RuneCountInString(q.Name) > maxPATName || !utf8.ValidString(q.Name) || strings.ContainsFunc(q.Name, unicode.IsControl):
		return fmt.Sprintf("The name of a token is one line of at most %d characters.", maxPATName)
	case q.Scope != patRead && q.Scope != patWrite:
		return "Choose what the token may do."
	case !slices.Contains(patLives, q.Days):
		return "Choose how long the token is good."
	}
	return ""
}

// create makes a token, and returns when it is on disk. It fails with errPATLimit.
func (p *pats) create(q patRequest, now time.Time) (pat, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	t, err := p.add(q, now)
	if err != nil {
		return pat{}, err
	}
	if err := p.write(); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.byHash, t.Hash)
		return pat{}, err
	}
	return t, nil
}

func (p *pats) add(q patRequest, now time.Time) (pat, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prune(now)
	own := 0
	for _, t := range p.byHash {
		if t.Host == q.Host && t.Owner == q.Owner.ID && t.Proof.Issuer == q.Proof.Issuer {
			own++
		}
	}
	if own >= maxOwnPATs || len(p.byHash) >= maxPATs {
		return pat{}, errPATLimit
	}
	t := &pat{
		ID: postern.NewID(), Hash: q.Secret.hash(), Host: q.Host, Owner: q.Owner.ID, Login: q.Owner.Login,
		Proof: q.Proof, Name: strings.TrimSpace(q.Name), Scope: q.Scope,
		Created: now.UTC().Truncate(time.Second), Expires: now.UTC().Truncate(time.Second).AddDate(0, 0, q.Days),
	}
	if q.Proof.Issuer != "" {
		t.Person, t.Vouched = &q.Owner, t.Created
	}
	p.byHash[t.Hash] = t
	return *t, nil
}

// list returns the tokens of a person at host whom issuer, or the portal if it is
// empty, calls owner; the newest first.
func (p *pats) list(host, issuer, owner string, now time.Time) []pat {
	p.mu.Lock()
	defer p.mu.Unlock()
	var own []pat
	for _, t := range p.byHash {
		if t.Host == host && t.Owner == owner && t.Proof.Issuer == issuer && now.Before(t.Expires.Add(patKept)) {
			own = append(own, *t)
		}
	}
	slices.SortFunc(own, func(a, b pat) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	return own
}

// all returns the tokens of everybody, by host, login and age.
func (p *pats) all(now time.Time) []pat {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []pat
	for _, t := range p.byHash {
		if now.Before(t.Expires.Add(patKept)) {
			all = append(all, *t)
		}
	}
	slices.SortFunc(all, func(a, b pat) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Login, b.Login), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// revoke ends one of a person's tokens. It fails with errPATAbsent if they have none
// with that id.
func (p *pats) revoke(host, issuer, owner, id string) error {
	_, err := p.remove(func(t *pat) bool {
		return t.ID == id && t.Host == host && t.Owner == owner && t.Proof.Issuer == issuer
	})
	return err
}

// remove ends the token that is meant, and returns it. It fails with errPATAbsent if
// there is none.
func (p *pats) remove(meant func(*pat) bool) (pat, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	t := p.take(meant)
	if t == nil {
		return pat{}, errPATAbsent
	}
	if err := p.write(); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.byHash[t.Hash] = t // it would be back after a restart
		return pat{}, err
	}
	return *t, nil
}

// take forgets the token that is meant, and returns it; nil: there is none.
func (p *pats) take(meant func(*pat) bool) *pat {
	p.mu.Lock()
	defer p.mu.Unlock()
	for hash, t := range p.byHash {
		if meant(t) {
			delete(p.byHash, hash)
			return t
		}
	}
	return nil
}

// find returns the token with that secret, if it is good at host, and notes that it
// is in use. It fails with errPATRefused.
func (p *pats) find(host string, secret patSecret, now time.Time) (pat, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.byHash[secret.hash()]
	if t == nil || t.Host != host || !t.good(now) {
		return pat{}, errPATRefused
	}
	if now.Sub(t.Used) >= time.Second {
		t.Used = now.UTC().Truncate(time.Second)
		p.dirty = true
	}
	return *t, nil
}

// alive reports whether the token with that hash is good at now.
func (p *pats) alive(hash patHash, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.byHash[hash]
	return t != nil && t.good(now)
}

// vouch notes what the pinned issuer of by said of a person who signed in, for the
// tokens that they have.
func (p *pats) vouch(by proof, person postern.Person, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.byHash {
		if t.Owner == person.ID && t.Proof.Issuer == by.Issuer {
			t.Proof, t.Person, t.Vouched = by, &person, now.UTC().Truncate(time.Second)
			p.dirty = true
		}
	}
}

// disown refuses the tokens of the owner with that id until issuer, a pinned one,
// vouches for them again.
func (p *pats) disown(issuer, owner string) {
	p.mu.Lock()
	for _, t := range p.byHash {
		if t.Owner == owner && t.Proof.Issuer == issuer {
			t.Vouched = time.Time{}
			p.dirty = true
		}
	}
	p.mu.Unlock()
	p.flush()
}

// prune forgets what expired long ago, and with it what would fill the list. The
// caller has the lock.
func (p *pats) prune(now time.Time) {
	maps.DeleteFunc(p.byHash, func(_ patHash, t *pat) bool { return !now.Before(t.Expires.Add(patKept)) })
	if len(p.byHash) >= maxPATs {
		maps.DeleteFunc(p.byHash, func(_ patHash, t *pat) bool { return !now.Before(t.Expires) })
	}
}

// write brings all tokens to disk. The caller has writing.
func (p *pats) write() error {
	p.mu.Lock()
	p.dirty = false
	all := make([]pat, 0, len(p.byHash))
	for _, t := range p.byHash {
		all = append(all, *t)
	}
	p.mu.Unlock()
	if p.dir == nil {
		return nil
	}
	slices.SortFunc(all, func(a, b pat) int { return strings.Compare(a.ID, b.ID) })
	err := p.dir.WriteJSON(patFile, all)
	if err != nil {
		p.mu.Lock()
		p.dirty = true
		p.mu.Unlock()
	}
	return err
}

// flush brings to disk what was noted lately.
func (p *pats) flush() {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	dirty := p.dirty
	p.mu.Unlock()
	if !dirty {
		return
	}
	if err := p.write(); err != nil {
		p.log.Error("keep what became of tokens", "err", err)
	}
}

// run keeps what is on disk up to date until ctx is done.
func (p *pats) run(ctx context.Context) error {
	tick := time.NewTicker(patFlush)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		p.flush()
	}
	return nil
}
