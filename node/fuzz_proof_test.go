package node

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// Whatever strangers send for a passkey makes none, and proves nothing.
func FuzzPasskeyAnswers(f *testing.F) {
	b := newBench(f)
	a := newAuthenticator(f, aOrigin)
	b.enrol(alice, a)
	code := b.invite(alice)
	other := newAuthenticator(f, aOrigin)
	f.Add([]byte(other.create(b.beginEnrol(code))))
	f.Add([]byte(other.get(b.beginUse(alice, "s1"))))
	f.Add([]byte(`{"id":"AAAA","rawId":"AAAA","type":"public-key","response":{}}`))
	f.Fuzz(func(t *testing.T, response []byte) {
		b.t = t
		b.beginEnrol(code)
		b.beginUse(alice, "s1")
		if k, err := b.finishEnrol(code, string(response)); err == nil {
			t.Errorf("it made %+v", k)
		}
		if k, err := b.finishUse(alice, "s1", string(response)); err == nil {
			t.Errorf("it proved %+v", k)
		}
		if got := b.keys.of(alice); len(got) != 1 {
			t.Fatalf("Alice has %d passkeys, want 1", len(got))
		}
	})
}

// A body is read whole, as one JSON object of known fields, or refused.
func FuzzPasskeyBodies(f *testing.F) {
	for _, body := range []string{`{"code":"x","credential":{"id":"y"}}`, `{"code":"x"}{}`, `{"code":"x"}}`, `{"user":"x"}`, `[]`, ``, `null`, `{"code":7}`} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("POST", "https://a.test"+pathEnrol+"/finish", bytes.NewReader(body))
		r.Header.Set("Accept", "application/json")
		w := httptest.NewRecorder()
		var got, want enrolWish
		ok := readJSON(w, r, &got)
		in := json.NewDecoder(bytes.NewReader(body))
		in.DisallowUnknownFields()
		err := in.Decode(&want)
		rest, _ := io.ReadAll(in.Buffered())
		good := err == nil && strings.Trim(string(rest), " \t\r\n") == ""
		if ok != good || ok && (got.Code != want.Code || !bytes.Equal(got.Credential, want.Credential)) {
			t.Errorf("%q is read: %v as %+v, want %v as %+v", body, ok, got, good, want)
		}
		if !ok && (w.Code != 400 || w.Header().Get("Content-Type") != "application/problem+json") {
			t.Errorf("%q gets %d %v", body, w.Code, w.Header())
		}
	})
}

// What an issuer says of a person yields one who fits into headers, or nobody.
func FuzzIssuerClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"1","preferred_username":"jane","email":"jane@acme.example","email_verified":true,"groups":["book-keepers"]}`))
	f.Add([]byte(`{"sub":"1","email":"a@b@acme.example","email_verified":"true","groups":"book-keepers","auth_time":1e300}`))
	f.Add([]byte(`{"sub":"\r\n","amr":7,"groups":{"book-keepers":1}}`))
	cfg := PinnedIssuer{Groups: map[string][]string{"accounting": {"book-keepers"}}, Domains: []string{"acme.example"}, GroupsClaim: "groups", Allow: AllowGroups}
	p := &pinned{cfg: cfg}
	f.Fuzz(func(t *testing.T, body []byte) {
		var claims issuerClaims
		if json.Unmarshal(body, &claims) != nil {
			return
		}
		v, err := p.admit(claims)
		if err != nil {
			return
		}
		for _, s := range []string{v.Person.ID, v.Person.Login} {
			if !plainName(s, maxSubject) {
				t.Errorf("a person is called %q", s)
			}
		}
		if !strings.HasSuffix(claims.verifiedEmail(), "@acme.example") || len(v.Person.Groups) != 1 {
			t.Errorf("%s lets %+v in", body, v.Person)
		}
	})
}
