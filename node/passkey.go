package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"postern"
	"postern/internal/datadir"
)

// passkeyFile keeps the passkeys of people, and the open invitations to make one, in
// the data directory.
const passkeyFile = "passkeys.json"

// Limits of passkeys.
const (
	maxPasskeys    = 10000 // at this node, and as many open invitations
	maxOwnPasskeys = 20    // of one person at one host

	enrolLife = 72 * time.Hour // of an invitation
)

var (
	errPasskeyLimit  = errors.New("there are too many passkeys or invitations")
	errPasskeyAbsent = errors.New("there is no such passkey")
	errPasskeyTaken  = errors.New("this passkey is there already")
	errEnrol         = errors.New("the invitation is unknown, used or expired")
)

// A passkeyOwner is the person that a passkey stands for, at one host name. All of it
// was said on this machine, or noted there when a passkey was made; what the map says
// later has to be the same.
type passkeyOwner struct {
	Host   string `json:"host"`
	Login  string `json:"login"`
	Person string `json:"person"` // id
}

// ownerAt returns what p is called at host.
func ownerAt(host string, p postern.Person) passkeyOwner {
	return passkeyOwner{Host: host, Login: p.Login, Person: p.ID}
}

// A passkey is a WebAuthn credential (Web Authentication Level 3, section 4) whose
// relying party is one host name of this node.
type passkey struct {
	ID string `json:"id"` // for lists; no secret
	passkeyOwner
	Handle     []byte              `json:"handle"` // user handle, the same for all passkeys of an owner
	Credential webauthn.Credential `json:"credential"`
	Created    time.Time           `json:"created"`
	Used       time.Time           `json:"used,omitzero"` // last
}

// An enrolment is an invitation to make a passkey: a link that is good once.
type enrolment struct {
	Code enrolHash `json:"code"`
	passkeyOwner
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// An enrolHash is the SHA-256 of an enrolment's code. The code has 256 random bits.
type enrolHash = patHash

func hashEnrolCode(code string) enrolHash { return sha256.Sum256([]byte(code)) }

// passkeys are those of a node. Its methods are safe for concurrent use; what they
// change is on disk when they return.
type passkeys struct {
	dir  *datadir.Dir // nil: nothing is kept on disk
	kept atomic.Pointer[passkeyState]

	writing sync.Mutex // held while kept changes, and not by who reads it
}

// passkeyState is the content of passkeyFile. It is replaced, never changed.
type passkeyState struct {
	Passkeys   []passkey   `json:"passkeys"`
	Enrolments []enrolment `json:"enrolments"`

	owners map[string]passkeyOwner // by id of the passkey
}

// openPasskeys reads what dir keeps.
func openPasskeys(dir *datadir.Dir) (*passkeys, error) {
	k := &passkeys{dir: dir}
	var kept passkeyState
	if dir != nil {
		if err := dir.ReadJSON(passkeyFile, &kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	k.keep(kept)
	return k, nil
}

// set replaces what is kept, on disk first. The caller has writing.
func (k *passkeys) set(next passkeyState) error {
	if k.dir != nil {
		if err := k.dir.WriteJSON(passkeyFile, next); err != nil {
			return err
		}
	}
	k.keep(next)
	return nil
}

func (k *passkeys) keep(next passkeyState) {
	next.owners = make(map[string]passkeyOwner, len(next.Passkeys))
	for _, p := range next.Passkeys {
		next.owners[p.ID] = p.passkeyOwner
	}
	k.kept.Store(&next)
}

// invite lets each of owners make a passkey, once, with the code that it returns for
// them: all of them or none. Their earlier invitations to the same hosts are void. It
// fails with errPasskeyLimit.
func (k *passkeys) invite(owners []passkeyOwner, now time.Time) (codes []string, expires time.Time, err error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	next := *k.kept.Load()
	next.Enrolments = slices.DeleteFunc(slices.Clone(next.Enrolments), func(e enrolment) bool {
		return !now.Before(e.Expires) || slices.ContainsFunc(owners, func(o passkeyOwner) bool { return e.Host == o.Host && e.Login == o.Login })
	})
	now = now.UTC().Truncate(time.Second)
	expires = now.Add(enrolLife)
	for _, owner := range owners {
		if len(next.Enrolments) >= maxPasskeys || len(next.Passkeys) >= maxPasskeys || len(next.owned(owner)) >= maxOwnPasskeys {
			return nil, time.Time{}, errPasskeyLimit
		}
		code := newSecret()
		codes = append(codes, code)
		next.Enrolments = append(next.Enrolments, enrolment{Code: hashEnrolCode(code), passkeyOwner: owner, Created: now, Expires: expires})
	}
	return codes, expires, k.set(next)
}

// enrolment returns what code is good for at host. It fails with errEnrol.
func (k *passkeys) enrolment(host, code string, now time.Time) (enrolment, error) {
	kept := k.kept.Load()
	i := kept.enrolmentIndex(host, code, now)
	if i < 0 {
		return enrolment{}, errEnrol
	}
	return kept.Enrolments[i], nil
}

// enrolmentIndex returns where the enrolment with code is, -1 if it is good no longer.
func (s *passkeyState) enrolmentIndex(host, code string, now time.Time) int {
	hash := hashEnrolCode(code)
	return slices.IndexFunc(s.Enrolments, func(e enrolment) bool {
		return e.Code == hash && e.Host == host && now.Before(e.Expires)
	})
}

// enrol uses code up for a passkey of whom it was made for. It fails with errEnrol if
// somebody else was faster, with errPasskeyTaken, and with errPasskeyLimit.
func (k *passkeys) enrol(host, code string, handle []byte, c webauthn.Credential, now time.Time) (passkey, error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	kept := k.kept.Load()
	i := kept.enrolmentIndex(host, code, now)
	if i < 0 {
		return passkey{}, errEnrol
	}
	owner := kept.Enrolments[i].passkeyOwner
	// A credential id belongs to one account at most (section 7.1, step 26).
	taken := func(p passkey) bool { return p.Host == host && bytes.Equal(p.Credential.ID, c.ID) }
	switch {
	case slices.ContainsFunc(kept.Passkeys, taken):
		return passkey{}, errPasskeyTaken
	case len(kept.Passkeys) >= maxPasskeys || len(kept.owned(owner)) >= maxOwnPasskeys:
		return passkey{}, errPasskeyLimit
	}
	p := passkey{
		ID: postern.NewID(), passkeyOwner: owner, Handle: handle, Credential: c,
		Created: now.UTC().Truncate(time.Second),
	}
	return p, k.set(passkeyState{
		Passkeys:   append(slices.Clip(kept.Passkeys), p),
		Enrolments: slices.Delete(slices.Clone(kept.Enrolments), i, i+1),
	})
}

// owned returns the passkeys of owner.
func (s *passkeyState) owned(owner passkeyOwner) []passkey {
	var own []passkey
	for _, p := range s.Passkeys {
		if p.passkeyOwner == owner {
			own = append(own, p)
		}
	}
	return own
}

// of returns the passkeys of owner.
func (k *passkeys) of(owner passkeyOwner) []passkey { return k.kept.Load().owned(owner) }

// holds reports whether owner has the passkey with that id.
func (k *passkeys) holds(owner passkeyOwner, id string) bool {
	held, ok := k.kept.Load().owners[id]
	return ok && held == owner
}

// used notes what became of the passkey with that id when it was used. It fails with
// errPasskeyAbsent if it was removed meanwhile.
func (k *passkeys) used(id string, c webauthn.Credential, now time.Time) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	next := *k.kept.Load()
	next.Passkeys = slices.Clone(next.Passkeys)
	i := slices.IndexFunc(next.Passkeys, func(p passkey) bool { return p.ID == id })
	if i < 0 {
		return errPasskeyAbsent
	}
	next.Passkeys[i].Credential, next.Passkeys[i].Used = c, now.UTC().Truncate(time.Second)
	return k.set(next)
}

// remove removes the passkey with that id, or fails with errPasskeyAbsent.
func (k *passkeys) remove(id string) (passkey, error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	kept := k.kept.Load()
	i := slices.IndexFunc(kept.Passkeys, func(p passkey) bool { return p.ID == id })
	if i < 0 {
		return passkey{}, errPasskeyAbsent
	}
	gone := kept.Passkeys[i]
	return gone, k.set(passkeyState{Passkeys: slices.Delete(slices.Clone(kept.Passkeys), i, i+1), Enrolments: kept.Enrolments})
}

// list returns all passkeys and all open invitations, by host and login.
func (k *passkeys) list(now time.Time) ([]passkey, []enrolment) {
	kept := k.kept.Load()
	keys := slices.Clone(kept.Passkeys)
	slices.SortStableFunc(keys, func(a, b passkey) int { return a.compare(b.passkeyOwner) })
	open := slices.DeleteFunc(slices.Clone(kept.Enrolments), func(e enrolment) bool { return !now.Before(e.Expires) })
	slices.SortStableFunc(open, func(a, b enrolment) int { return a.compare(b.passkeyOwner) })
	return keys, open
}

func (o passkeyOwner) compare(q passkeyOwner) int {
	if c := strings.Compare(o.Host, q.Host); c != 0 {
		return c
	}
	return strings.Compare(o.Login, q.Login)
}
