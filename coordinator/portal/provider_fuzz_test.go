package portal

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"postern/coordinator"
)

// Whatever a browser is sent with: only who is a client is answered there, where it
// is registered, and what is taken has all that the profile asks for.
func FuzzAuthRequest(f *testing.F) {
	const host = "acme.apps.test"
	right := url.Values{
		"client_id": {host}, "redirect_uri": {"https://" + host + coordinator.CallbackPath}, "response_type": {"code"}, "scope": {"openid"},
		"state": {"s"}, "nonce": {"n"}, "code_challenge": {strings.Repeat("A", 43)}, "code_challenge_method": {"S256"},
	}
	f.Add(right.Encode())
	f.Add(right.Encode() + "&prompt=none")
	f.Add(right.Encode() + "&max_age=0&response_mode=query")
	f.Add(right.Encode() + "&client_id=" + host)
	f.Add(strings.Replace(right.Encode(), "https", "http", 1))
	f.Add(strings.Replace(right.Encode(), "AAAA", "AA%0AAA", 1))
	f.Add("client_id=" + host + "&redirect_uri=https%3A%2F%2Fevil.example")
	clients := func(name string) (string, bool) { return "https://" + name, name == host }
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		req, err := parseAuthRequest(q, clients)
		var refused *authError
		if err != nil && !errors.As(err, &refused) {
			return
		}
		if req.Client != host || req.Redirect != "https://"+host+coordinator.CallbackPath {
			t.Fatalf("%q would be sent to %q (%v)", req.Client, req.Redirect, err)
		}
		if len(req.State) > maxState {
			t.Fatalf("a state of %d bytes is kept", len(req.State))
		}
		if err == nil && (req.State == "" || req.Nonce == "" || len(req.Challenge) != 43 || q.Get("code_challenge_method") != "S256" ||
			q.Get("response_type") != "code" || q.Has("request") || len(q["state"]) != 1) {
			t.Fatalf("taken: %+v of %q", req, raw)
		}
	})
}

// A user code is read as people type it, and from nothing else.
func FuzzUserCode(f *testing.F) {
	for _, s := range []string{"BCDF-GHJK", "bcdf ghjk", "bcdfghjk", "", "BCDFGHJ", "BCDFGHJKL", "ſſſſſſſſ", strings.Repeat("-", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := parseUserCode(s)
		if got == "" {
			return
		}
		if len(got) != 9 || got[4] != '-' || got != strings.ToUpper(got) || parseUserCode(got) != got {
			t.Fatalf("%q is read as %q", s, got)
		}
		if !strings.EqualFold(strings.Map(letter, s), strings.Replace(got, "-", "", 1)) {
			t.Fatalf("%q is read as %q", s, got)
		}
	})
}

func letter(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return -1
}
