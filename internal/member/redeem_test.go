package member

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern"
)

func TestRedeem(t *testing.T) {
	f := newFakeCoordinator(t)
	dir := openDir(t)
	id, err := join(t, f, dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(dir, id, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	form := url.Values{"grant_type": {"authorization_code"}, "code": {"a code"}, "client_id": {"acme.test"}}
	var next http.HandlerFunc
	f.Config.Handler.(*http.ServeMux).HandleFunc("POST "+postern.PathToken, func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			t.Error("the node does not say who it is")
		}
		if err := r.ParseForm(); err != nil || r.PostForm.Encode() != form.Encode() || len(r.URL.RawQuery) > 0 {
			t.Errorf("form is %v, %v", r.PostForm, err)
		}
		next(w, r)
	})
	say := func(status int, v any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { answer(w, status, v) }
	}
	var refused *TokenError
	var problem *postern.Problem
	tests := []struct {
		name   string
		answer http.HandlerFunc
		id     string // token; empty: an error
		check  func(error) bool
	}{
		{"good", say(200, map[string]any{"id_token": "i", "access_token": "a", "token_type": "Bearer", "expires_in": 600}), "i", nil},
		{"a refused code", say(400, map[string]string{"error": "invalid_grant", "error_description": "used"}), "", func(err error) bool {
			return errors.As(err, &refused) && refused.Code == "invalid_grant" && strings.HasSuffix(err.Error(), "invalid_grant: used")
		}},
		{"a refused client", say(401, map[string]string{"error": "invalid_client"}), "", func(err error) bool {
			return errors.As(err, &refused) && strings.HasSuffix(err.Error(), "invalid_client")
		}},
		{"a refused member", say(403, postern.NewProblem(403, postern.CodeForbidden, "not your host", "")), "", func(err error) bool {
			return errors.As(err, &problem) && problem.Code == postern.CodeForbidden
		}},
		{"no ID token", say(200, map[string]string{"access_token": "a"}), "", func(err error) bool { return strings.Contains(err.Error(), "no ID token") }},
		{"a proxy's page", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }, "", func(err error) bool {
			return strings.Contains(err.Error(), "502")
		}},
		{"no JSON", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("x")) }, "", func(err error) bool {
			return strings.Contains(err.Error(), "decode the answer")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			next = tt.answer
			got, err := c.Redeem(t.Context(), form)
			if got.IDToken != tt.id || (err == nil) != (tt.check == nil) || err != nil && !tt.check(err) {
				t.Errorf("got %+v, %v", got, err)
			}
			if tt.id != "" && got.AccessToken != "a" {
				t.Errorf("access token is %q", got.AccessToken)
			}
		})
	}
}
