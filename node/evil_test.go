package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern"
)

// An evil is a coordinator that wants to get into a node's service: it owns the key
// that the portal signs with, redeems codes, and says in the map what it likes. Ann
// works there honestly; what passes between her and the node it does not see.
type evil struct {
	*world
	n      *Node
	dir    *Dir
	issuer *fakeIssuer // the customer's
	used   string      // code of the link by which Ann made her passkey
	ann    *http.Client
	seen   string // what Ann's browser sent when it used the passkey
	key    *authenticator
}

// newEvil starts a node with a service that requires what is given, another that
// requires nothing, and Ann at work.
func newEvil(t *testing.T, require string) *evil {
	e := &evil{world: newWorld(t), issuer: newFakeIssuer(t)}
	e.set(func() { e.portal, e.people = newTestPortal(t, time.Now), []postern.Person{ann, bob} })
	cfg := e.issuer.config()
	e.dir = e.join()
	told := func(name string) string {
		return application(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s for %q", name, r.Header.Get(headerUser))
		})
	}
	e.n, _, _ = e.run(Config{
		Dir: e.dir, Keepalive: time.Second, SignIn: SignIn{Issuer: &cfg},
		Services: []Service{{Upstream: told("the books"), Require: require}, {Name: "plain", Upstream: told("nothing")}},
	})
	await(t, "ready", ready(e.n))
	e.ann = e.browser()
	switch require {
	case postern.RequireIssuer:
		resp, _ := get(t, e.ann, "https://"+testHost+"/", navigation...)
		get(t, e.ann, atIssuer(t, e.issuer, resp), navigation...)
	case postern.RequirePasskey:
		e.used = invited(t, e.dir, ann.Login)
		e.key = newAuthenticator(t, "https://"+testHost+":8443")
		options := must(t)(step(t, e.ann, testHost, pathEnrol+"/options", map[string]string{"code": e.used}))
		must(t)(step(t, e.ann, testHost, pathEnrol+"/finish", map[string]any{"code": e.used, "credential": json.RawMessage(e.key.create(options))}))
		e.signIn(e.ann, ann, "sid-ann")
		options = must(t)(step(t, e.ann, testHost, pathPasskey+"/options", struct{}{}))
		e.seen = e.key.get(options)
		must(t)(step(t, e.ann, testHost, pathPasskey+"/finish", map[string]any{"target": "/", "credential": json.RawMessage(e.seen)}))
	default:
		e.signIn(e.ann, ann, "sid-ann")
	}
	// The node is not closed to everybody.
	if resp, body := get(t, e.ann, "https://"+testHost+"/", navigation...); resp.StatusCode != 200 || !strings.HasPrefix(body, `the books for "`) || body == `the books for ""` {
		t.Fatalf("Ann gets %d %s", resp.StatusCode, body)
	}
	return e
}

// say changes the map, and waits until the node acts on it.
func (e *evil) say(change func()) {
	e.t.Helper()
	was := e.n.server.table.Load()
	e.set(change)
	await(e.t, "the map", func() bool { return e.n.server.table.Load() != was })
}

// gotIn reports whether c gets to the books in anybody's name.
func (e *evil) gotIn(c *http.Client, header ...string) bool {
	e.t.Helper()
	resp, body := get(e.t, c, "https://"+testHost+"/", append(slices.Clone(program), header...)...)
	return resp.StatusCode == 200 && strings.HasPrefix(body, "the books")
}

// forge signs who in at the node by the portal's word, as far as that goes.
func (e *evil) forge(c *http.Client, who postern.Person) {
	e.t.Helper()
	resp, _ := get(e.t, c, "https://"+testHost+pathLogin+"?iss="+url.QueryEscape(e.portal.told().Issuer), navigation...)
	if at := resp.Header.Get("Location"); strings.HasPrefix(at, testIssuer) {
		back := e.portal.authorize(at, testUser{who.ID, "sid-evil", time.Now()})
		get(e.t, c, strings.Replace(back, ":8443/", "/", 1), navigation...)
	}
}

// An attack tries to get in, and returns with what to try the books.
type attack struct {
	name string
	open bool // whether it succeeds at a service that requires nothing
	do   func(e *evil, c *http.Client) (header []string)
}

var mallory = postern.Person{ID: "u-mallory", Login: "mallory", Role: postern.TenantOwner}

var attacks = []attack{
	{"a forged ID token of somebody who is there", true, func(e *evil, c *http.Client) []string {
		e.forge(c, ann)
		return nil
	}},
	{"an owner made up", true, func(e *evil, c *http.Client) []string {
		e.say(func() { e.people = []postern.Person{ann, mallory} })
		e.forge(c, mallory)
		return nil
	}},
	{"an owner made up with somebody's login", true, func(e *evil, c *http.Client) []string {
		p := mallory
		p.Login = ann.Login
		e.say(func() { e.people = []postern.Person{p} })
		e.forge(c, p)
		return nil
	}},
	{"an owner made up with somebody's id", true, func(e *evil, c *http.Client) []string {
		p := mallory
		p.ID = ann.ID
		e.say(func() { e.people = []postern.Person{p} })
		e.forge(c, p)
		return nil
	}},
	{"an owner made up who is somebody at the customer's issuer", true, func(e *evil, c *http.Client) []string {
		p := mallory
		p.ID, p.Login = "248289761001", "jane"
		e.say(func() { e.people = []postern.Person{p} })
		e.forge(c, p)
		return nil
	}},
	{"an access token", true, func(e *evil, c *http.Client) []string {
		return []string{"Authorization", "Bearer " + e.portal.access(testUser{ann.ID, "sid-evil", time.Now()}, "https://"+testHost+":8443", nil)}
	}},
	{"an access token that says that a passkey was used", true, func(e *evil, c *http.Client) []string {
		token := e.portal.access(testUser{ann.ID, "sid-evil", time.Now()}, "https://"+testHost+":8443", func(_ map[jose.HeaderKey]any, claims map[string]any) {
			claims["amr"] = []string{"pwd", "hwk"}
		})
		return []string{"Authorization", "Bearer " + token}
	}},
	{"an ID token that says that a passkey was used", true, func(e *evil, c *http.Client) []string {
		e.portal.forge = func(_ map[jose.HeaderKey]any, claims map[string]any) { claims["amr"] = []string{"pwd", "hwk"} }
		e.forge(c, ann)
		return nil
	}},
	{"the customer's issuer's name", true, func(e *evil, c *http.Client) []string {
		token := e.portal.access(testUser{ann.ID, "sid-evil", time.Now()}, "https://"+testHost+":8443", func(_ map[jose.HeaderKey]any, claims map[string]any) {
			claims["iss"] = e.issuer.srv.URL
		})
		// The map says that the portal is where the customer's issuer is.
		e.say(func() { e.posing = e.issuer.srv.URL })
		return []string{"Authorization", "Bearer " + token}
	}},
	{"a sign-in while the name leads to another service", true, func(e *evil, c *http.Client) []string {
		e.say(func() { e.routed = "plain" })
		e.forge(c, ann)
		e.say(func() { e.routed = "" })
		return nil
	}},
	{"a token made while the name leads to another service", true, func(e *evil, c *http.Client) []string {
		e.say(func() { e.routed = "plain" })
		e.forge(c, ann)
		secret := makeToken(e.t, c, testHost, patWrite)
		e.say(func() { e.routed = "" })
		return []string{"Authorization", "Bearer " + secret}
	}},
	{"a token", true, func(e *evil, c *http.Client) []string {
		e.forge(c, ann)
		_, body := submit(e.t, c, "https://"+testHost+pathTokens, typeForm, tokenForm("x", patWrite, "365"))
		return []string{"Authorization", "Bearer " + aToken.FindString(body)}
	}},
	{"a token made up", false, func(e *evil, c *http.Client) []string {
		return []string{"Authorization", "Bearer " + newPATSecret().text()}
	}},
	{"the link that made a passkey, again", false, func(e *evil, c *http.Client) []string {
		mine := newAuthenticator(e.t, "https://"+testHost+":8443")
		_, body := step(e.t, c, testHost, pathEnrol+"/options", map[string]string{"code": e.used})
		if strings.Contains(body, "challenge") {
			step(e.t, c, testHost, pathEnrol+"/finish", map[string]any{"code": e.used, "credential": json.RawMessage(mine.create(body))})
		}
		e.provePasskey(c, mine)
		return nil
	}},
	{"a passkey of its own, made without a link", true, func(e *evil, c *http.Client) []string {
		mine := newAuthenticator(e.t, "https://"+testHost+":8443")
		e.forge(c, ann)
		options := fmt.Sprintf(`{"publicKey":{"challenge":%q,"rp":{"id":%q},"user":{"id":"AAAA"}}}`, b64(make([]byte, 32)), testHost)
		for _, code := range []string{"", newSecret()} {
			step(e.t, c, testHost, pathEnrol+"/finish", map[string]any{"code": code, "credential": json.RawMessage(mine.create(options))})
		}
		return nil
	}},
	{"its own key in place of the passkey", true, func(e *evil, c *http.Client) []string {
		mine := newAuthenticator(e.t, "https://"+testHost+":8443")
		if e.key != nil {
			mine.id, mine.handle, mine.counter = e.key.id, e.key.handle, 1000
		}
		e.forge(c, ann)
		e.provePasskey(c, mine)
		return nil
	}},
	{"what somebody's browser sent when it used the passkey", true, func(e *evil, c *http.Client) []string {
		e.forge(c, ann)
		if e.seen != "" {
			step(e.t, c, testHost, pathPasskey+"/options", struct{}{})
			step(e.t, c, testHost, pathPasskey+"/finish", map[string]any{"target": "/", "credential": json.RawMessage(e.seen)})
		}
		return nil
	}},
	{"the portal's code at the issuer's callback", false, func(e *evil, c *http.Client) []string {
		resp, _ := get(e.t, c, "https://"+testHost+"/", navigation...)
		at, err := url.Parse(resp.Header.Get("Location"))
		if err != nil {
			e.t.Fatal(err)
		}
		q := url.Values{"state": {at.Query().Get("state")}, "code": {e.code(at.Query())}}
		get(e.t, c, "https://"+testHost+pathIssuerCallback+"?"+q.Encode(), navigation...)
		return nil
	}},
	{"the portal's code at the portal's callback, in a sign-in at the issuer", true, func(e *evil, c *http.Client) []string {
		resp, _ := get(e.t, c, "https://"+testHost+"/", navigation...)
		at, err := url.Parse(resp.Header.Get("Location"))
		if err != nil {
			e.t.Fatal(err)
		}
		q := url.Values{"state": {at.Query().Get("state")}, "code": {e.code(at.Query())}}
		get(e.t, c, "https://"+testHost+pathCallback+"?"+q.Encode(), navigation...)
		return nil
	}},
}

// code returns a code that the portal redeems for Ann, to what was asked of it or of
// the issuer.
func (e *evil) code(asked url.Values) string {
	code := newSecret()
	e.portal.mu.Lock()
	defer e.portal.mu.Unlock()
	e.portal.codes[code] = authRequest{asked, testUser{ann.ID, "sid-evil", time.Now()}}
	return code
}

// provePasskey uses a where the node asks for a passkey, if it does.
func (e *evil) provePasskey(c *http.Client, a *authenticator) {
	resp, options := step(e.t, c, testHost, pathPasskey+"/options", struct{}{})
	if resp.StatusCode == http.StatusOK {
		step(e.t, c, testHost, pathPasskey+"/finish", map[string]any{"target": "/", "credential": json.RawMessage(a.get(options))})
	}
}

// A coordinator that lies gets nobody in where the node requires more than its word,
// and anybody where it does not: identity is out of its reach, or it is the operator's.
func TestEvilCoordinator(t *testing.T) {
	for _, require := range []string{"", postern.RequirePasskey, postern.RequireIssuer} {
		t.Run("require "+require, func(t *testing.T) {
			e := newEvil(t, require)
			honest := e.people
			for _, a := range attacks {
				t.Run(a.name, func(t *testing.T) {
					e.t = t
					c := e.browser()
					header := a.do(e, c)
					if got, want := e.gotIn(c, header...), a.open && require == ""; got != want {
						t.Errorf("it gets in: %v, want %v", got, want)
					}
					e.portal.forge = nil
					e.say(func() { e.people, e.routed, e.posing = honest, "", "" })
				})
			}
			e.t = t
			// All of it did nothing to who works there honestly.
			if require == postern.RequireIssuer && !e.gotIn(e.ann) {
				t.Error("Ann has been thrown out")
			}
			if got := e.n.server.proofs.passkeys.of(ownerAt(testHost, ann)); require == postern.RequirePasskey && len(got) != 1 {
				t.Errorf("Ann has %d passkeys, want hers", len(got))
			}
		})
	}
}
