package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"postern/internal/datadir"
)

const aOrigin = "https://a.test:8443"

var alice = passkeyOwner{Host: "a.test", Login: "alice@acme.example", Person: "u-alice"}

// A bench is where passkeys of a.test are made and used.
type bench struct {
	t    testing.TB
	dir  *datadir.Dir
	keys *passkeys
	open *ceremonies
	rp   *webauthn.WebAuthn
	now  time.Time
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, dir: newDataDir(t), open: new(ceremonies), now: time.Unix(1_800_000_000, 0)}
	b.reopen()
	var err error
	if b.rp, err = relyingParty("a.test", aOrigin, "Books"); err != nil {
		t.Fatal(err)
	}
	return b
}

// reopen reads what is on disk, as a node that starts does.
func (b *bench) reopen() {
	b.t.Helper()
	var err error
	if b.keys, err = openPasskeys(b.dir); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) invite(owner passkeyOwner) string {
	b.t.Helper()
	codes, _, err := b.keys.invite([]passkeyOwner{owner}, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return codes[0]
}

func (b *bench) beginEnrol(code string) string {
	b.t.Helper()
	options, err := b.keys.beginEnrol(b.open, b.rp, code, b.now)
	return marshalOptions(b.t, options, err)
}

func marshalOptions(t testing.TB, options any, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (b *bench) finishEnrol(code, response string) (passkey, error) {
	return b.keys.finishEnrol(b.open, b.rp, code, []byte(response), b.now)
}

// enrol gives owner a passkey in a.
func (b *bench) enrol(owner passkeyOwner, a *authenticator) passkey {
	b.t.Helper()
	code := b.invite(owner)
	k, err := b.finishEnrol(code, a.create(b.beginEnrol(code)))
	if err != nil {
		b.t.Fatalf("enrol: %v", explained(err))
	}
	return k
}

func (b *bench) beginUse(owner passkeyOwner, key string) string {
	b.t.Helper()
	options, err := b.keys.beginUse(b.open, b.rp, owner, key, b.now)
	return marshalOptions(b.t, options, err)
}

func (b *bench) finishUse(owner passkeyOwner, key, response string) (passkey, error) {
	return b.keys.finishUse(b.open, b.rp, owner, key, []byte(response), b.now)
}

// explained adds what the library says for developers.
func explained(err error) error {
	var pe *protocol.Error
	if errors.As(err, &pe) {
		return errors.New(pe.Details + ": " + pe.DevInfo)
	}
	return err
}

func TestPasskey(t *testing.T) {
	for _, packed := range []bool{false, true} {
		b := newBench(t)
		a := newAuthenticator(t, aOrigin)
		a.packed = packed
		k := b.enrol(alice, a)
		if k.passkeyOwner != alice || k.ID == "" || len(k.Handle) != 32 {
			t.Errorf("packed %v: enrolled %+v", packed, k)
		}
		b.reopen()
		for i := range 2 { // the second time with the counter of the first
			got, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1")))
			if err != nil || got.ID != k.ID {
				t.Errorf("packed %v, use %d: %q, %v, want %q", packed, i, got.ID, explained(err), k.ID)
			}
			b.reopen()
		}
		if got := b.keys.of(alice); len(got) != 1 || got[0].Credential.Authenticator.SignCount != 3 || !got[0].Used.Equal(b.now) {
			t.Errorf("packed %v: after its use it is %+v", packed, got)
		}
	}
}

// A person who has several is one account to each authenticator.
func TestPasskeysShareTheirHandle(t *testing.T) {
	b := newBench(t)
	first, second := newAuthenticator(t, aOrigin), newAuthenticator(t, aOrigin)
	one := b.enrol(alice, first)
	code := b.invite(alice)
	options := b.beginEnrol(code)
	if !strings.Contains(options, b64(first.id)) {
		t.Errorf("the options %s do not exclude the passkey that is there", options)
	}
	two, err := b.finishEnrol(code, second.create(options))
	if err != nil || !bytes.Equal(one.Handle, two.Handle) {
		t.Fatalf("the second has handle %x, %v, want %x", two.Handle, explained(err), one.Handle)
	}
	for _, a := range []*authenticator{first, second} {
		if _, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1"))); err != nil {
			t.Error(explained(err))
		}
	}
}

func TestEnrolmentIsGoodOnceAndForItsHost(t *testing.T) {
	t.Run("once", func(t *testing.T) {
		b := newBench(t)
		code := b.invite(alice)
		if _, err := b.finishEnrol(code, newAuthenticator(t, aOrigin).create(b.beginEnrol(code))); err != nil {
			t.Fatal(explained(err))
		}
		if _, err := b.keys.beginEnrol(b.open, b.rp, code, b.now); !errors.Is(err, errEnrol) {
			t.Errorf("a used code begins with %v, want %v", err, errEnrol)
		}
		b.reopen()
		if _, err := b.keys.beginEnrol(b.open, b.rp, code, b.now); !errors.Is(err, errEnrol) {
			t.Errorf("after a restart a used code begins with %v, want %v", err, errEnrol)
		}
	})
	t.Run("its response once", func(t *testing.T) {
		b := newBench(t)
		code := b.invite(alice)
		response := newAuthenticator(t, aOrigin).create(b.beginEnrol(code))
		if _, err := b.finishEnrol(code, response); err != nil {
			t.Fatal(explained(err))
		}
		if _, err := b.finishEnrol(code, response); !errors.Is(err, errEnrol) {
			t.Errorf("a replayed response ends in %v, want %v", err, errEnrol)
		}
	})
	t.Run("a failed attempt leaves it", func(t *testing.T) {
		b := newBench(t)
		code := b.invite(alice)
		b.beginEnrol(code)
		if _, err := b.finishEnrol(code, "{}"); err == nil {
			t.Fatal("nonsense made a passkey")
		}
		if _, err := b.finishEnrol(code, "{}"); !errors.Is(err, errCeremony) {
			t.Errorf("a second answer to the same options ends in %v, want %v", err, errCeremony)
		}
		if _, err := b.finishEnrol(code, newAuthenticator(t, aOrigin).create(b.beginEnrol(code))); err != nil {
			t.Errorf("another try: %v", explained(err))
		}
	})
	t.Run("for 72 hours", func(t *testing.T) {
		b := newBench(t)
		code := b.invite(alice)
		b.now = b.now.Add(enrolLife - time.Second)
		options := b.beginEnrol(code)
		b.now = b.now.Add(time.Second)
		if _, err := b.finishEnrol(code, newAuthenticator(t, aOrigin).create(options)); !errors.Is(err, errEnrol) {
			t.Errorf("an expired code ends in %v, want %v", err, errEnrol)
		}
	})
	t.Run("until the next", func(t *testing.T) {
		b := newBench(t)
		old, other := b.invite(alice), b.invite(passkeyOwner{Host: "a.test", Login: "bob", Person: "u-bob"})
		b.invite(alice)
		if _, err := b.keys.enrolment("a.test", old, b.now); !errors.Is(err, errEnrol) {
			t.Errorf("an earlier code: %v, want %v", err, errEnrol)
		}
		if _, err := b.keys.enrolment("a.test", other, b.now); err != nil {
			t.Errorf("somebody else's code: %v", err)
		}
	})
	t.Run("at its host", func(t *testing.T) {
		b := newBench(t)
		code := b.invite(alice)
		if _, err := b.keys.enrolment("b.test", code, b.now); !errors.Is(err, errEnrol) {
			t.Errorf("at another host: %v, want %v", err, errEnrol)
		}
	})
	t.Run("not tampered with", func(t *testing.T) {
		b := newBench(t)
		code := b.invite(alice)
		for _, bad := range []string{"", code[:len(code)-1], code + "A", strings.ToUpper(code), " " + code} {
			if _, err := b.keys.enrolment("a.test", bad, b.now); !errors.Is(err, errEnrol) {
				t.Errorf("code %q: %v, want %v", bad, err, errEnrol)
			}
		}
	})
}

func TestInvitationsAllOrNone(t *testing.T) {
	b := newBench(t)
	there := alice
	there.Host = "b.test"
	for range maxOwnPasskeys {
		b.enrol(alice, newAuthenticator(t, aOrigin))
	}
	earlier := b.invite(there)
	if codes, _, err := b.keys.invite([]passkeyOwner{there, alice}, b.now); !errors.Is(err, errPasskeyLimit) || codes != nil {
		t.Errorf("where she may have no more at one of two: %q, %v, want none, %v", codes, err, errPasskeyLimit)
	}
	if _, open := b.keys.list(b.now); len(open) != 1 {
		t.Errorf("after that %+v are open, want the earlier one", open)
	}
	if _, err := b.keys.enrolment("b.test", earlier, b.now); err != nil {
		t.Errorf("after that the earlier code: %v", err)
	}
	both := []passkeyOwner{there, {Host: "a.test", Login: "bob", Person: "u-bob"}}
	codes, expires, err := b.keys.invite(both, b.now)
	if err != nil {
		t.Fatal(err)
	}
	for i, owner := range both {
		if e, err := b.keys.enrolment(owner.Host, codes[i], b.now); err != nil || e.passkeyOwner != owner || !e.Expires.Equal(expires) {
			t.Errorf("code %d is good for %+v, %v, want %+v until %v", i, e, err, owner, expires)
		}
	}
}

func TestBadEnrolments(t *testing.T) {
	tests := []struct {
		name string
		do   func(*authenticator)
		bend func(string) string // the response
	}{
		{"another origin", func(a *authenticator) { a.origin = "https://evil.test" }, nil},
		{"another port", func(a *authenticator) { a.origin = "https://a.test" }, nil},
		{"plain http", func(a *authenticator) { a.origin = "http://a.test:8443" }, nil},
		{"another relying party", func(a *authenticator) { a.rpID = "evil.test" }, nil},
		{"the parent as relying party", func(a *authenticator) { a.rpID = "test" }, nil},
		{"user not verified", func(a *authenticator) { a.silent = true }, nil},
		{"a use for a making", func(a *authenticator) { a.kind = "webauthn.get" }, nil},
		{"another key's attestation", func(a *authenticator) { a.packed = true }, func(r string) string {
			return swapSignature(r)
		}},
		{"not JSON", nil, func(string) string { return "hello" }},
		{"an empty object", nil, func(string) string { return "{}" }},
		{"cut short", nil, func(r string) string { return r[:len(r)/2] }},
		{"another type", nil, func(r string) string { return strings.Replace(r, "public-key", "password", 1) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			a := newAuthenticator(t, aOrigin)
			if tt.do != nil {
				tt.do(a)
			}
			code := b.invite(alice)
			response := a.create(b.beginEnrol(code))
			if tt.bend != nil {
				response = tt.bend(response)
			}
			if _, err := b.finishEnrol(code, response); err == nil {
				t.Error("it made a passkey")
			}
			if got := b.keys.of(alice); len(got) != 0 {
				t.Errorf("it left %+v", got)
			}
		})
	}
}

// swapSignature spoils the first signature in an attestation object.
func swapSignature(response string) string {
	var r map[string]any
	if err := json.Unmarshal([]byte(response), &r); err != nil {
		panic(err)
	}
	inner := r["response"].(map[string]any)
	object, err := b64Decode(inner["attestationObject"].(string))
	if err != nil {
		panic(err)
	}
	at := bytes.Index(object, []byte("sig"))
	object[at+20] ^= 1
	inner["attestationObject"] = b64(object)
	out, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func TestBadUses(t *testing.T) {
	bob := passkeyOwner{Host: "a.test", Login: "bob", Person: "u-bob"}
	tests := []struct {
		name string
		use  func(b *bench, a, other *authenticator) error
	}{
		{"another origin", func(b *bench, a, _ *authenticator) error {
			a.origin = "https://a.test.evil.test"
			_, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"another relying party", func(b *bench, a, _ *authenticator) error {
			a.rpID = "b.test"
			_, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"user not verified", func(b *bench, a, _ *authenticator) error {
			a.silent = true
			_, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"a making for a use", func(b *bench, a, _ *authenticator) error {
			a.kind = "webauthn.create"
			_, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"somebody else's passkey", func(b *bench, _, other *authenticator) error {
			_, err := b.finishUse(alice, "s1", other.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"somebody else's passkey with one's own id", func(b *bench, a, other *authenticator) error {
			other.id, other.handle = a.id, a.handle
			_, err := b.finishUse(alice, "s1", other.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"an unknown passkey", func(b *bench, a, _ *authenticator) error {
			stranger := newAuthenticator(b.t, aOrigin)
			stranger.handle = a.handle
			_, err := b.finishUse(alice, "s1", stranger.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"somebody else's ceremony", func(b *bench, a, _ *authenticator) error {
			_, err := b.finishUse(alice, "s1", a.get(b.beginUse(bob, "s1")))
			return err
		}},
		{"another sign-in's ceremony", func(b *bench, a, _ *authenticator) error {
			_, err := b.finishUse(alice, "s2", a.get(b.beginUse(alice, "s1")))
			return err
		}},
		{"a response twice", func(b *bench, a, _ *authenticator) error {
			response := a.get(b.beginUse(alice, "s1"))
			if _, err := b.finishUse(alice, "s1", response); err != nil {
				b.t.Fatal(explained(err))
			}
			_, err := b.finishUse(alice, "s1", response)
			return err
		}},
		{"a response twice, to new options", func(b *bench, a, _ *authenticator) error {
			response := a.get(b.beginUse(alice, "s1"))
			b.beginUse(alice, "s1")
			_, err := b.finishUse(alice, "s1", response)
			return err
		}},
		{"too late", func(b *bench, a, _ *authenticator) error {
			response := a.get(b.beginUse(alice, "s1"))
			b.now = b.now.Add(ceremonyLife)
			_, err := b.finishUse(alice, "s1", response)
			return err
		}},
		{"a counter that stands still", func(b *bench, a, _ *authenticator) error {
			a.counter--
			_, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1")))
			if !errors.Is(err, errCloned) {
				b.t.Errorf("it ends in %v, want %v", err, errCloned)
			}
			return err
		}},
		{"a counter that goes backwards", func(b *bench, a, _ *authenticator) error {
			clone := *a
			for range 3 {
				if _, err := b.finishUse(alice, "s1", a.get(b.beginUse(alice, "s1"))); err != nil {
					b.t.Fatal(explained(err))
				}
			}
			_, err := b.finishUse(alice, "s1", clone.get(b.beginUse(alice, "s1")))
			if !errors.Is(err, errCloned) {
				b.t.Errorf("it ends in %v, want %v", err, errCloned)
			}
			return err
		}},
		{"removed meanwhile", func(b *bench, a, _ *authenticator) error {
			response := a.get(b.beginUse(alice, "s1"))
			if _, err := b.keys.remove(b.keys.of(alice)[0].ID); err != nil {
				b.t.Fatal(err)
			}
			_, err := b.finishUse(alice, "s1", response)
			return err
		}},
		{"another login with the same id", func(b *bench, a, _ *authenticator) error {
			owner := alice
			owner.Login = "boss@acme.example"
			_, err := b.keys.beginUse(b.open, b.rp, owner, "s1", b.now)
			return err
		}},
		{"another id with the same login", func(b *bench, a, _ *authenticator) error {
			owner := alice
			owner.Person = "u-boss"
			_, err := b.keys.beginUse(b.open, b.rp, owner, "s1", b.now)
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			a, other := newAuthenticator(t, aOrigin), newAuthenticator(t, aOrigin)
			b.enrol(alice, a)
			b.enrol(bob, other)
			if err := tt.use(b, a, other); err == nil {
				t.Error("it was taken for a proof")
			}
		})
	}
}

func TestPasskeyRemoved(t *testing.T) {
	b := newBench(t)
	k := b.enrol(alice, newAuthenticator(t, aOrigin))
	if !b.keys.holds(alice, k.ID) || b.keys.holds(passkeyOwner{Host: "b.test", Login: alice.Login, Person: alice.Person}, k.ID) {
		t.Error("a passkey is held by its owner at its host, and nobody else")
	}
	if _, err := b.keys.remove(k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.keys.remove(k.ID); !errors.Is(err, errPasskeyAbsent) {
		t.Errorf("removed twice: %v, want %v", err, errPasskeyAbsent)
	}
	b.reopen()
	if b.keys.holds(alice, k.ID) {
		t.Error("it is back after a restart")
	}
}

func TestPasskeyTwice(t *testing.T) {
	b := newBench(t)
	a := newAuthenticator(t, aOrigin)
	b.enrol(alice, a)
	code := b.invite(passkeyOwner{Host: "a.test", Login: "bob", Person: "u-bob"})
	if _, err := b.finishEnrol(code, a.create(b.beginEnrol(code))); !errors.Is(err, errPasskeyTaken) {
		t.Errorf("one credential for two people: %v, want %v", err, errPasskeyTaken)
	}
}

func TestCeremoniesAreBounded(t *testing.T) {
	var c ceremonies
	now := time.Unix(1_800_000_000, 0)
	key := func(i int) string { return strings.Repeat("x", i) }
	for i := range maxCeremonies {
		if err := c.put(key(i), webauthn.SessionData{}, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.put("more", webauthn.SessionData{}, now); !errors.Is(err, errCrowded) {
		t.Errorf("one more: %v, want %v", err, errCrowded)
	}
	if err := c.put(key(1), webauthn.SessionData{}, now); err != nil {
		t.Errorf("one of them again: %v", err)
	}
	if err := c.put("later", webauthn.SessionData{}, now.Add(ceremonyLife)); err != nil {
		t.Errorf("when they have ended: %v", err)
	}
	if len(c.open) != 1 {
		t.Errorf("%d are kept, want 1", len(c.open))
	}
}
