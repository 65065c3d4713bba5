package coordinator

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"

	"postern"
)

// Limits of a password, in characters.
const (
	MinPassword = 10
	MaxPassword = 256
)

// maxHashing bounds the passwords that are hashed at one time, each with its
// memory.
const maxHashing = 4

// passwords hashes passwords, a few at a time.
type passwords struct {
	params argon2id.Params
	slots  chan struct{}
}

func newPasswords() *passwords {
	return &passwords{
		params: argon2id.Params{Memory: 64 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32},
		slots:  make(chan struct{}, min(maxHashing, runtime.GOMAXPROCS(0))), // more would only take memory
	}
}

// enter waits for a turn; leave ends it.
func (p *passwords) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hash a password: %w", ctx.Err())
	}
}

func (p *passwords) leave() { <-p.slots }

func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	if err := p.enter(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	return argon2id.CreateHash(password, &p.params)
}

// matches reports whether hash is password's, and whether it is to be made anew
// as it was made with other parameters. For an empty hash it takes as long and
// says no.
func (p *passwords) matches(ctx context.Context, password, hash string) (ok, stale bool, err error) {
	if hash == "" {
		_, err := p.hash(ctx, password)
		return false, false, err
	}
	if err := p.enter(ctx); err != nil {
		return false, false, err
	}
	defer p.leave()
	ok, params, err := argon2id.CheckHash(password, hash)
	if err != nil {
		return false, false, fmt.Errorf("check a password: %w", err)
	}
	return ok, *params != p.params, nil
}

// CheckPassword returns the user whom login and password are right for. Attempts
// are limited by login and by source, and cost the same whether or not there is
// such a user. Refusals are Problems: CodeUnauthorized, CodeTooMany.
func (c *Coordinator) CheckPassword(ctx context.Context, login, password string, remote netip.Addr) (User, error) {
	login, err := parseLogin(login)
	if err != nil {
		login = "" // nobody's, and all such attempts are for one
	}
	if err := c.limitSignIn(ctx, login, remote); err != nil {
		return User{}, err
	}
	var u User
	err = c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		u, err = tx.Users().ByLogin(login)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return User{}, err
	}
	if utf8.RuneCountInString(password) > MaxPassword {
		password = "" // nobody's
	}
	ok, stale, err := c.passwords.matches(ctx, password, u.Password)
	if err != nil {
		return User{}, err
	}
	if why := u.refusal(ok); why != nil {
		// What a stranger typed is not recorded: it may be a password in the
		// wrong field.
		c.refused(ctx, ActorStranger, "signin.refused", "", u.ID, remote, why)
		if ok && !u.Disabled.IsZero() {
			// Whoever has the password may know, and should not try others.
			return User{}, unauthorized("this account cannot sign in", "ask whoever invited you")
		}
		return User{}, unauthorized("login or password is wrong", "try again, or sign in with a passkey")
	}
	if stale {
		c.rehash(ctx, u, password)
	}
	return u, nil
}

// refusal says why u, the zero User for an unknown one, cannot sign in with a
// password that is right or not; nil if they can.
func (u *User) refusal(right bool) error {
	switch {
	case u.ID == "":
		return errors.New("no such login")
	case u.Password == "":
		return errors.New(u.Login + " has no password")
	case !right:
		return errors.New("wrong password for " + u.Login)
	case !u.Disabled.IsZero():
		return errors.New(u.Login + " is disabled")
	}
	return nil
}

// limitSignIn refuses the attempts that are too many for one login or source.
func (c *Coordinator) limitSignIn(ctx context.Context, login string, remote netip.Addr) error {
	var why error
	switch {
	// By source first: what is refused by it leaves its victim's attempts alone.
	case !c.limits.signIn.allow(SourceOf(remote)):
		why = errors.New("too many attempts from this source")
	case !c.limits.login.allow(login):
		why = errors.New("too many attempts for one login")
	default:
		return nil
	}
	c.refused(ctx, ActorStranger, "signin.refused", "", "", remote, why)
	return postern.NewProblem(http.StatusTooManyRequests, postern.CodeTooMany,
		"too many attempts to sign in", "wait a minute and try again, or sign in with a passkey")
}

// rehash brings a password's hash up to date, right after it was right.
func (c *Coordinator) rehash(ctx context.Context, u User, password string) {
	hash, err := c.passwords.hash(ctx, password)
	if err == nil {
		err = c.update(ctx, ActorUser(u.ID), func(ch *change) error {
			now, err := ch.Users().Get(u.ID)
			if err != nil || now.Password != u.Password {
				return err // another one was set in the meantime
			}
			now.Password = hash
			return ch.Users().Put(now)
		})
	}
	if err != nil {
		c.log.Warn("password not hashed anew", "err", err)
	}
}

// SetPassword sets a user's password, of 10 to 256 characters, as often as is recorded of
// one actor. All sessions of the user but the one with id keep end.
func (c *Coordinator) SetPassword(ctx context.Context, actor, user, password, keep string) error {
	u, err := c.User(ctx, user)
	if err != nil {
		return noUser(err, user)
	}
	hash, err := c.hashPassword(ctx, password, u.Login)
	if err != nil {
		return err
	}
	return c.update(ctx, actor, func(ch *change) error {
		u, err := activeUser(ch, user)
		if err != nil {
			return noUser(err, user)
		}
		if err := ch.checkLocal(u); err != nil {
			return err
		}
		if !c.limits.record.allow(actor) {
			return tooMany()
		}
		u.Password = hash
		return errors.Join(ch.Users().Put(u), ch.endOthers(&u, keep), ch.auditUser("user.password", u, u.Login))
	})
}

// hashPassword checks password as login's and returns its hash.
func (c *Coordinator) hashPassword(ctx context.Context, password, login string) (string, error) {
	if err := checkPassword(password, login); err != nil {
		return "", invalid(err, "a few random words are easy to keep in mind and hard to guess")
	}
	return c.passwords.hash(ctx, password)
}

// The most common passwords that are long enough, one a line, in lower case.
//
//go:embed passwords.txt
var commonText string

var common = func() map[string]bool {
	all := make(map[string]bool)
	for p := range strings.FieldsSeq(commonText) {
		all[p] = true
	}
	return all
}()

// checkPassword reports why password is none for login.
func checkPassword(password, login string) error {
	lower := strings.ToLower(password)
	local, _, _ := strings.Cut(login, "@")
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password):
		return errors.New("the password is not UTF-8")
	case n < MinPassword:
		return fmt.Errorf("the password has %d characters, fewer than %d", n, MinPassword)
	case n > MaxPassword:
		return fmt.Errorf("the password has %d characters, more than %d", n, MaxPassword)
	case lower == login || lower == local:
		return errors.New("the password is the login")
	case common[lower] || strings.Count(lower, lower[:1]) == len(lower):
		return errors.New("this password is one of the first that anybody would try")
	}
	return nil
}
