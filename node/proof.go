package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"postern"
	"postern/internal/datadir"
)

// A proof says how somebody proved who they are.
type proof struct {
	Issuer  string `json:"issuer,omitempty"`  // URL of the pinned issuer that said so; empty: the portal
	Rules   string `json:"rules,omitempty"`   // of PinnedIssuer.rules then; empty: the portal
	Passkey string `json:"passkey,omitempty"` // id of the passkey of this node that they used besides; empty: none
}

// proofs are the ways to prove who one is in which the coordinator has no say, and the
// tokens that people make for programs. Its methods are safe for concurrent use.
type proofs struct {
	gate     *gate
	tokens   *pats
	passkeys *passkeys
	open     ceremonies
	wrong    guesses
	pinned   atomic.Pointer[pinned] // nil: there is none
}

// newProofs returns those of the people of g, kept in dir; nil: nowhere.
func newProofs(g *gate, dir *datadir.Dir) (*proofs, error) {
	p := &proofs{gate: g}
	var err error
	if p.tokens, err = openPATs(dir, g.log); err != nil {
		return nil, err
	}
	if p.passkeys, err = openPasskeys(dir); err != nil {
		return nil, err
	}
	return p, nil
}

// ways returns what p is to a gate.
func (p *proofs) ways() ways {
	return ways{token: p.token, trusts: p.trusts, holds: p.holds, prove: p.prove}
}

// handle adds the pages of p to mux.
func (p *proofs) handle(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pathTokens, p.tokenPage)
	mux.HandleFunc("POST "+pathTokens, p.createToken)
	mux.HandleFunc("POST "+pathTokens+"/revoke", p.revokeToken)
	mux.HandleFunc("GET "+pathPasskey, p.passkeyPage)
	mux.HandleFunc("POST "+pathPasskey+"/options", p.passkeyOptions)
	mux.HandleFunc("POST "+pathPasskey+"/finish", p.passkeyFinish)
	mux.HandleFunc("GET "+pathEnrol, p.enrolPage)
	mux.HandleFunc("POST "+pathEnrol+"/options", p.enrolOptions)
	mux.HandleFunc("POST "+pathEnrol+"/finish", p.enrolFinish)
	mux.HandleFunc("GET "+pathPasskeyJS, servePasskeyJS)
	mux.HandleFunc("GET "+pathIssuerCallback, p.issuerCallback)
}

// token returns what a personal access token is worth to r at host.
func (p *proofs) token(r *http.Request, host, text string) (*credential, error) {
	now := p.gate.now()
	secret, err := parsePAT(text)
	var t pat
	if err == nil {
		t, err = p.tokens.find(host, secret, now)
	}
	switch {
	case err != nil && p.wrong.another(sourceOf(r), now):
		return nil, &bearerError{code: bearerToken, detail: "The token is unknown here, or no longer good.", err: err}
	case err != nil:
		return nil, &bearerError{code: bearerTooMany, detail: "Too many tokens that are not good came from your address. Try again in a minute.", err: err}
	case !t.permits(r):
		return nil, &bearerError{code: bearerScope, detail: "The token is for reading only."}
	}
	return &credential{
		person: t.Owner, pinned: t.Person, proof: t.Proof, since: t.Created, token: "personal token " + t.ID,
		lasting: true, good: func(now time.Time) bool { return p.tokens.alive(t.Hash, now) },
	}, nil
}

// trusts reports whether what by says that a pinned issuer said still counts.
func (p *proofs) trusts(by proof) bool {
	pinned := p.pinned.Load()
	return pinned != nil && by.Issuer == pinned.mark.Issuer && by.Rules == pinned.mark.Rules
}

// holds reports whether who has the passkey with that id at host.
func (p *proofs) holds(host string, who *postern.Person, passkey string) bool {
	return p.passkeys.holds(ownerAt(host, *who), passkey)
}

// prove begins what require says, for a browser that is to come back to target.
func (p *proofs) prove(w http.ResponseWriter, r *http.Request, require, target string) {
	switch require {
	case postern.RequireIssuer:
		p.askIssuer(w, r, target)
	case postern.RequirePasskey:
		askForPasskey(w, target)
	default:
		panic("node: unknown requirement " + require)
	}
}

// setPinned makes cfg the pinned issuer; nil: there is none. The caller has the gate
// recheck what goes on.
func (p *proofs) setPinned(cfg *PinnedIssuer) error {
	var next *pinned
	if held := p.pinned.Load(); held != nil && cfg != nil && reflect.DeepEqual(held.given, *cfg) {
		return nil
	}
	if cfg != nil {
		var err error
		if next, err = newPinned(*cfg, p.gate.now); err != nil {
			return err
		}
	}
	if old := p.pinned.Swap(next); old != nil {
		old.close()
	}
	return nil
}

// run keeps what is on disk up to date until ctx is done.
func (p *proofs) run(ctx context.Context) error {
	err := p.tokens.run(ctx)
	if pinned := p.pinned.Load(); pinned != nil {
		pinned.close()
	}
	return err
}

// A visitor is who asks for a page of the node's own, by a session that is as good as
// the service at that host requires.
type visitor struct {
	host    string
	table   *table
	service *service
	person  *postern.Person
	session session
}

// issuer returns who told of v: the URL of the pinned issuer, empty for the portal.
func (v visitor) issuer() string { return v.session.Proof.Issuer }

// visitor returns who sent r. If that is nobody whom the page is for, it answers r and
// reports false. A bearer token is nobody's visit: programs make no tokens.
func (p *proofs) visitor(w http.ResponseWriter, r *http.Request) (visitor, bool) {
	v, proven, ok := p.unproven(w, r)
	if ok && !proven {
		p.gate.turnAway(w, r, v.host, v.service, unproven, v.person)
		return v, false
	}
	return v, ok
}

// unproven is visitor for who may have more to prove. It reports whether they have not.
func (p *proofs) unproven(w http.ResponseWriter, r *http.Request) (v visitor, proven, ok bool) {
	v = visitor{host: requestHost(r), table: p.gate.table()}
	if v.service = v.table.hosts[v.host]; v.service == nil {
		writePage(w, r, notPublished)
		return v, false, false
	}
	if v.session, ok = p.gate.session(r, v.host); ok && !presentedOf(r).token {
		v.person, proven = p.gate.who(v.table, v.service, v.host, v.session.credential())
	}
	if v.person == nil {
		p.gate.turnAway(w, r, v.host, v.service, nobody, nil)
		return v, false, false
	}
	return v, proven, true
}

// guesses bound how many wrong secrets one source may try in a minute. The zero value
// is ready. Its methods are safe for concurrent use.
type guesses struct {
	mu    sync.Mutex
	since time.Time
	wrong map[netip.Prefix]int
}

const (
	maxGuesses = 30    // of one source, in a minute
	maxSources = 20000 // that are told apart
)

// another notes a wrong secret from source, and reports whether it may be told so.
// The right one is never refused for others' guesses: it is one of 2^256.
func (g *guesses) another(source netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wrong == nil || now.Sub(g.since) >= time.Minute {
		g.since, g.wrong = now, map[netip.Prefix]int{}
	}
	if _, known := g.wrong[source]; !known && len(g.wrong) >= maxSources {
		return false
	}
	g.wrong[source]++
	return g.wrong[source] <= maxGuesses
}

// right takes back what another noted: it was none.
func (g *guesses) right(source netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wrong[source]--; g.wrong[source] <= 0 {
		delete(g.wrong, source)
	}
}

// sourceOf returns what counts as one source of r: an IPv4 address or an IPv6 /64.
func sourceOf(r *http.Request) netip.Prefix {
	a := connOf(r).header.Src.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	source, _ := a.Prefix(bits) // the zero address has the zero prefix
	return source
}

// checkRequired reports a service that requires an issuer although none is pinned, as
// a *postern.FieldError.
func checkRequired(services []Service, pinned bool) error {
	for i, s := range services {
		if s.Require == postern.RequireIssuer && !pinned {
			return &postern.FieldError{
				Field: fmt.Sprintf("services[%d].require", i),
				Err:   errors.New("no issuer is pinned: say which under sign_in.issuer"),
			}
		}
	}
	return nil
}
