package main

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"postern/internal/datadir"
)

// An answering is an http.RoundTripper that gives the answers for each path in turn,
// and notes what it was asked.
type answering struct {
	asked   []string
	answers map[string][]reply // by URL
}

type reply struct {
	status         int
	location, body string
}

func (a *answering) RoundTrip(r *http.Request) (*http.Response, error) {
	at := r.URL.String()
	a.asked = append(a.asked, at)
	next := reply{status: http.StatusNotFound}
	if left := a.answers[at]; len(left) > 0 {
		next, a.answers[at] = left[0], left[1:]
	}
	header := http.Header{}
	if next.location != "" {
		header.Set("Location", next.location)
	}
	return &http.Response{StatusCode: next.status, Header: header, Body: io.NopCloser(strings.NewReader(next.body)), Request: r}, nil
}

const (
	testPortal  = "https://portal.example"
	tokenPath   = testPortal + "/oauth/token"
	devicePath  = testPortal + "/oauth/device"
	deviceBegun = `{"device_code":"d","user_code":"BCDF-GHJK","verification_uri_complete":"https://portal.example/device?user_code=BCDF-GHJK","expires_in":600,"interval":5}`
)

var (
	given   = reply{200, "", `{"access_token":"a","refresh_token":"r2"}`}
	begun   = reply{200, "", deviceBegun}
	pending = reply{400, "", `{"error":"authorization_pending"}`}
	broken  = reply{500, "", `{"error":"server_error","error_description":"the disk is full"}`}
	gone    = reply{502, "", "<html>bad gateway"}
)

// TestLoginFlow: when the user is asked, and what ends the wait.
func TestLoginFlow(t *testing.T) {
	held := loginSession{Portal: testPortal, Refresh: "r1"}
	for _, tt := range []struct {
		name    string
		held    loginSession
		answers map[string][]reply
		asked   int    // requests
		err     string // empty: there is a token
	}{
		{"a session that goes on", held, map[string][]reply{tokenPath: {given}}, 1, ""},
		{"a session that has ended", held, map[string][]reply{
			tokenPath: {{400, "", `{"error":"invalid_grant"}`}, given}, devicePath: {begun},
		}, 3, ""},
		{"a session, and a portal that fails", held, map[string][]reply{tokenPath: {broken}}, 1, "portal https://portal.example: the disk is full"},
		{"a session, and no portal there", held, map[string][]reply{tokenPath: {gone}}, 1, "portal https://portal.example answers with status 502"},
		{"a portal that fails for a while", loginSession{}, map[string][]reply{
			devicePath: {begun}, tokenPath: {pending, broken, {503, "", `{"error":"temporarily_unavailable"}`}, gone, pending, given},
		}, 7, ""},
		{"refused", loginSession{}, map[string][]reply{
			devicePath: {begun}, tokenPath: {pending, {400, "", `{"error":"access_denied"}`}},
		}, 3, "portal https://portal.example: access_denied"},
		{"a page of somebody else's", loginSession{}, map[string][]reply{
			devicePath: {{200, "", strings.Replace(deviceBegun, "//portal.example", "//portal.example.evil", 1)}},
		}, 1, `portal https://portal.example: it names "https://portal.example.evil/device?user_code=BCDF-GHJK" to sign in at, which is not its own`},
		{"a page in the open", loginSession{}, map[string][]reply{
			devicePath: {{200, "", strings.Replace(deviceBegun, "https:", "http:", 1)}},
		}, 1, `portal https://portal.example: it names "http://portal.example/device?user_code=BCDF-GHJK" to sign in at, which is not its own`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, err := datadir.Open(t.TempDir(), "login")
				if err != nil {
					t.Fatal(err)
				}
				defer dir.Close()
				a := &answering{answers: tt.answers}
				var ask bytes.Buffer
				l := &loginFlow{host: "acme.example", port: "443", portal: testPortal, dir: dir, hc: &http.Client{Transport: a}, ask: &ask}
				token, err := l.token(t.Context(), tt.held)
				if got := errorText(err); got != tt.err {
					t.Fatalf("got error %q, want %q", got, tt.err)
				}
				if len(a.asked) != tt.asked {
					t.Errorf("asked %v, want %d requests", a.asked, tt.asked)
				}
				if tt.err != "" {
					if strings.Contains(tt.err, "not its own") && ask.Len() > 0 {
						t.Errorf("the user is told %q", ask.String())
					}
					return
				}
				var kept loginSession
				if err := dir.ReadJSON(loginFile, &kept); err != nil || token != "a" || kept != (loginSession{testPortal, "r2"}) {
					t.Errorf("got token %q and kept %+v, %v", token, kept, err)
				}
			})
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestFindPortal: it is where the host sends browsers to sign in, and nothing that a
// name looks like.
func TestFindPortal(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reply reply
		want  string // empty: an error
	}{
		{"a service with a name", reply{303, "https://portal.apps.example/authorize?client_id=live.acme.apps.example", ""}, "https://portal.apps.example"},
		{"another port", reply{303, "https://Portal.apps.example:8443/authorize?client_id=live.acme.apps.example", ""}, "https://portal.apps.example:8443"},
		{"an issuer of the company's", reply{303, "https://login.acme.example/oauth2/auth?client_id=live.acme.apps.example", ""}, ""},
		{"in another's name", reply{303, "https://portal.apps.example/authorize?client_id=books.acme.apps.example", ""}, ""},
		{"in the open", reply{303, "http://portal.apps.example/authorize?client_id=live.acme.apps.example", ""}, ""},
		{"nowhere", reply{200, "", "welcome"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &answering{answers: map[string][]reply{"https://live.acme.apps.example/.well-known/postern/tokens": {tt.reply}}}
			hc := &http.Client{Transport: a, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			l := &loginFlow{host: "live.acme.apps.example", port: "443", hc: hc}
			if got, err := l.findPortal(t.Context()); got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
