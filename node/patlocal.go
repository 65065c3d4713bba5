package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"postern"
)

// A PersonalToken is a token that a person made for a program of theirs, in the local
// API: never its secret.
type PersonalToken struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`   // the one that it is good at
	Login   string    `json:"login"`  // of its owner, when it was made
	Person  string    `json:"person"` // id of the owner
	Name    string    `json:"name"`
	Scope   string    `json:"scope"`             // read or write
	Issuer  string    `json:"issuer,omitempty"`  // that signed its owner in; empty: the portal
	Passkey string    `json:"passkey,omitempty"` // that they used besides; empty: none
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"` // last; zero: never
}

func (t pat) told() PersonalToken {
	return PersonalToken{
		ID: t.ID, Host: t.Host, Login: t.Login, Person: t.Owner, Name: t.Name, Scope: t.Scope,
		Issuer: t.Proof.Issuer, Passkey: t.Proof.Passkey, Created: t.Created, Expires: t.Expires, Used: t.Used,
	}
}

func (n *Node) getTokens(w http.ResponseWriter, r *http.Request) {
	out := []PersonalToken{}
	for _, t := range n.server.proofs.tokens.all(time.Now()) {
		out = append(out, t.told())
	}
	writeJSON(w, http.StatusOK, out)
}

func (n *Node) revokeToken(w http.ResponseWriter, r *http.Request) {
	t, err := n.server.proofs.tokens.remove(func(t *pat) bool { return t.ID == r.PathValue("id") })
	switch {
	case errors.Is(err, errPATAbsent):
		refuse(w, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			fmt.Sprintf("there is no personal token %q here", r.PathValue("id")), "`postern node tokens list` shows their ids"))
	case err != nil:
		n.log.Error("revoke a personal token", "err", err)
		refuse(w, postern.NewProblem(http.StatusInternalServerError, postern.CodeInternal, err.Error(), "nothing was changed"))
	default:
		n.server.gate.recheck()
		n.log.Info("personal token revoked", "server_name", t.Host, "user", t.Owner, "token", t.ID)
		writeJSON(w, http.StatusOK, t.told())
	}
}

// ListPersonalTokens asks the node whose Socket has the given path for the tokens that
// people made there, by host and login. It fails with ErrNotRunning if there is none,
// and so does RevokePersonalToken.
func ListPersonalTokens(ctx context.Context, socket string) (out []PersonalToken, err error) {
	err = askLocal(ctx, socket, http.MethodGet, pathLocalTokens, nil, &out)
	return out, err
}

// RevokePersonalToken ends a token, and returns what it was. What it refuses is a
// *postern.Problem.
func RevokePersonalToken(ctx context.Context, socket, id string) (out PersonalToken, err error) {
	err = askLocal(ctx, socket, http.MethodDelete, pathLocalTokens+"/"+url.PathEscape(id), nil, &out)
	return out, err
}
