package node

import (
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"postern"
)

// invited has the node whose directory is dir make a link for login, and returns the
// code in it.
func invited(t *testing.T, dir *Dir, login string) string {
	t.Helper()
	links, err := InvitePasskey(t.Context(), dir.Path(Socket), PasskeyRequest{Login: login})
	if err != nil {
		t.Fatal(err)
	}
	if len(links.Links) != 1 {
		t.Fatalf("links are %+v, want one", links)
	}
	u, err := url.Parse(links.Links[0].URL)
	if err != nil || u.Scheme+"://"+u.Host != "https://"+testHost+":8443" || u.Path != pathEnrol {
		t.Fatalf("the link is %q, %v", links.Links[0].URL, err)
	}
	return u.Query().Get("code")
}

func TestPasskeysOverTheSocket(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.portal, w.people = newTestPortal(t, time.Now), []postern.Person{ann, bob} })
	dir := w.join()
	n, _, _ := w.start(dir, Service{Upstream: "http://127.0.0.1:1", Require: postern.RequirePasskey}, Service{Name: "other", Upstream: "http://127.0.0.1:1"})
	await(t, "the socket", func() bool { _, err := QueryStatus(t.Context(), dir.Path(Socket)); return err == nil })
	await(t, "ready", ready(n))
	socket := dir.Path(Socket)
	if got, err := ListPasskeys(t.Context(), socket); err != nil || len(got.Passkeys)+len(got.Invitations) != 0 {
		t.Fatalf("at first there are %+v, %v", got, err)
	}
	first, second := invited(t, dir, ann.Login), invited(t, dir, strings.ToUpper(ann.Login))
	links, err := InvitePasskey(t.Context(), socket, PasskeyRequest{Login: bob.Login, Service: "default"})
	if err != nil || !links.Required || links.Service != "default" || time.Until(links.Links[0].Expires) < enrolLife-time.Minute {
		t.Errorf("Bob's links are %+v, %v", links, err)
	}
	got, err := ListPasskeys(t.Context(), socket)
	if err != nil || len(got.Invitations) != 2 || got.Invitations[0].Login != ann.Login || got.Invitations[0].Person != ann.ID || got.Invitations[0].Host != testHost {
		t.Errorf("there are %+v, %v", got, err)
	}
	if raw, err := json.Marshal(got); err != nil || strings.Contains(string(raw), second) {
		t.Errorf("the list has the code: %s, %v", raw, err)
	}
	c := w.browser()
	if resp, _ := step(t, c, testHost, pathEnrol+"/options", map[string]string{"code": first}); resp.StatusCode != 404 {
		t.Errorf("an earlier code gets %d", resp.StatusCode)
	}
	a := newAuthenticator(t, "https://"+testHost+":8443")
	options := must(t)(step(t, c, testHost, pathEnrol+"/options", map[string]string{"code": second}))
	must(t)(step(t, c, testHost, pathEnrol+"/finish", map[string]any{"code": second, "credential": json.RawMessage(a.create(options))}))
	got, err = ListPasskeys(t.Context(), socket)
	if err != nil || len(got.Passkeys) != 1 || len(got.Invitations) != 1 || got.Passkeys[0].Login != ann.Login || got.Passkeys[0].ID == "" {
		t.Fatalf("there are %+v, %v", got, err)
	}
	gone, err := RemovePasskey(t.Context(), socket, got.Passkeys[0].ID)
	if err != nil || !reflect.DeepEqual(gone, got.Passkeys[0]) {
		t.Errorf("removed %+v, %v", gone, err)
	}

	double := bob
	double.ID = "u-another"
	w.set(func() { w.people = []postern.Person{ann, bob, double} })
	await(t, "the people", func() bool { return len(n.server.table.Load().people) == 3 })
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		detail                   string
	}{
		{"an unknown passkey", "DELETE", pathPasskeys + "/nope", "", 404, `there is no passkey "nope"`},
		{"an unknown login", "POST", pathPasskeyInvitations, `{"login": "eve"}`, 404, `nobody with the login "eve"`},
		{"no login", "POST", pathPasskeyInvitations, `{}`, 404, `nobody with the login ""`},
		{"one login of two people", "POST", pathPasskeyInvitations, `{"login": "bob"}`, 409, "2 people"},
		{"an unknown service", "POST", pathPasskeyInvitations, `{"login": "ann@acme.test", "service": "nope"}`, 404, `no service "nope"`},
		{"a service without address", "POST", pathPasskeyInvitations, `{"login": "ann@acme.test", "service": "other"}`, 409, "no address yet"},
		{"an unknown field", "POST", pathPasskeyInvitations, `{"user": "ann"}`, 400, "unknown field"},
		{"no JSON", "POST", pathPasskeyInvitations, `login=ann`, 400, "decode"},
		{"too much", "POST", pathPasskeyInvitations, `{"login": "` + strings.Repeat("x", maxRequest) + `"}`, 400, "too large"},
	} {
		status, body := ask(t, dir, tt.method, tt.path, tt.body)
		if status != tt.status || !strings.Contains(body, strings.ReplaceAll(tt.detail, `"`, `\"`)) {
			t.Errorf("%s: %d %s", tt.name, status, body)
		}
	}
	for _, require := range []string{"", postern.RequirePasskey} {
		want := map[string]string{"": "no service of this node requires a passkey yet", postern.RequirePasskey: "several services require a passkey"}[require]
		var services []Service
		for _, name := range []string{"a", "b"} {
			services = append(services, Service{Name: name, Upstream: "http://127.0.0.1:1", Access: postern.AccessMembers, Require: require})
		}
		if err := n.SetServices(services); err != nil {
			t.Fatal(err)
		}
		var p *postern.Problem
		if _, err := InvitePasskey(t.Context(), socket, PasskeyRequest{Login: ann.Login}); !errors.As(err, &p) ||
			!strings.Contains(p.Detail, want) || !strings.Contains(p.Hint, "--service") {
			t.Errorf("two services that require %q: %v", require, err)
		}
	}
}
