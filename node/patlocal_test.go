package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"postern"
)

func TestTokensOverTheSocket(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.portal, w.people = newTestPortal(t, time.Now), []postern.Person{ann, bob} })
	dir := w.join()
	n, stop, ended := w.start(dir, Service{Upstream: application(t, echo)})
	await(t, "the socket", func() bool { _, err := QueryStatus(t.Context(), dir.Path(Socket)); return err == nil })
	await(t, "ready", ready(n))
	socket := dir.Path(Socket)
	if got, err := ListPersonalTokens(t.Context(), socket); err != nil || got == nil || len(got) != 0 {
		t.Fatalf("at first there are %+v, %v", got, err)
	}
	c := w.browser()
	w.signIn(c, ann, "sid-1")
	secret := makeToken(t, c, testHost, patWrite)
	call := func() int {
		resp, _ := get(t, w.browser(), "https://"+testHost+"/", append(program, "Authorization", "Bearer "+secret)...)
		return resp.StatusCode
	}
	if got := call(); got != 200 {
		t.Fatalf("the token gets %d", got)
	}
	// It is good for longer than a node runs.
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	n, _, _ = w.start(dir, Service{Upstream: application(t, echo)})
	await(t, "ready again", ready(n))
	if got := call(); got != 200 {
		t.Errorf("after a restart the token gets %d", got)
	}
	got, err := ListPersonalTokens(t.Context(), socket)
	if err != nil || len(got) != 1 || got[0].Login != ann.Login || got[0].Person != ann.ID || got[0].Host != testHost || got[0].Scope != patWrite || got[0].Used.IsZero() {
		t.Fatalf("there are %+v, %v", got, err)
	}
	if _, body := ask(t, dir, "GET", pathLocalTokens, ""); strings.Contains(body, secret) || strings.Contains(body, "hash") {
		t.Errorf("the list has the secret: %s", body)
	}
	var p *postern.Problem
	if _, err := RevokePersonalToken(t.Context(), socket, "nope"); !errors.As(err, &p) || p.Code != postern.CodeNotFound {
		t.Errorf("revoke an unknown one: %v", err)
	}
	if gone, err := RevokePersonalToken(t.Context(), socket, got[0].ID); err != nil || gone.ID != got[0].ID {
		t.Errorf("revoked %+v, %v", gone, err)
	}
	if got := call(); got != 401 {
		t.Errorf("revoked it gets %d", got)
	}
}
