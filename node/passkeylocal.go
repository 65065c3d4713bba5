package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"postern"
)

// Passkeys are those that were made at a node for its services that require one, and
// the links to make more that are still good, in the local API.
type Passkeys struct {
	Passkeys    []Passkey           `json:"passkeys"`
	Invitations []PasskeyInvitation `json:"invitations"`
}

// A Passkey lets a person prove at one host name that they are who the portal says.
type Passkey struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	Login   string    `json:"login"`
	Person  string    `json:"person"` // id
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"` // last; zero: never
}

// A PasskeyInvitation lets a person make a passkey at one host name, once.
type PasskeyInvitation struct {
	Host    string    `json:"host"`
	Login   string    `json:"login"`
	Person  string    `json:"person"` // id
	Expires time.Time `json:"expires"`
}

// A PasskeyRequest asks for links by which a person makes a passkey.
type PasskeyRequest struct {
	Login string `json:"login"`

	// Service is at whose host names. If empty, the one that requires passkeys; the
	// one that there is if none does.
	Service string `json:"service,omitempty"`
}

// PasskeyLinks are the answer to a PasskeyRequest, one for each host name of the
// service: the one place where the links are.
type PasskeyLinks struct {
	Service  string        `json:"service"`
	Required bool          `json:"required"` // whether the service asks for passkeys yet
	Links    []PasskeyLink `json:"links"`
}

// A PasskeyLink is to be opened once, in a browser, by whom it is for.
type PasskeyLink struct {
	PasskeyInvitation
	URL string `json:"url"`
}

// maxRequest bounds what the local API reads about passkeys, in bytes.
const maxRequest = 64 << 10

func (n *Node) getPasskeys(w http.ResponseWriter, r *http.Request) {
	keys, open := n.server.proofs.passkeys.list(time.Now())
	out := Passkeys{Passkeys: []Passkey{}, Invitations: []PasskeyInvitation{}}
	for _, k := range keys {
		out.Passkeys = append(out.Passkeys, k.told())
	}
	for _, e := range open {
		out.Invitations = append(out.Invitations, PasskeyInvitation{e.Host, e.Login, e.Person, e.Expires})
	}
	writeJSON(w, http.StatusOK, out)
}

func (k passkey) told() Passkey {
	return Passkey{ID: k.ID, Host: k.Host, Login: k.Login, Person: k.Person, Created: k.Created, Used: k.Used}
}

func (n *Node) invitePasskey(w http.ResponseWriter, r *http.Request) {
	var req PasskeyRequest
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	in.DisallowUnknownFields()
	if err := in.Decode(&req); err != nil {
		refuse(w, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid, "decode the request: "+err.Error(), ""))
		return
	}
	links, err := n.passkeyLinks(req)
	var p *postern.Problem
	switch {
	case errors.As(err, &p):
		refuse(w, p)
	case errors.Is(err, errPasskeyLimit):
		refuse(w, postern.NewProblem(http.StatusConflict, postern.CodeForbidden, err.Error(), "remove some that are of no use any more"))
	case err != nil:
		n.log.Error("keep an invitation to make a passkey", "err", err)
		refuse(w, postern.NewProblem(http.StatusInternalServerError, postern.CodeInternal, err.Error(), "nothing was changed"))
	default:
		n.log.Info("invitation to make a passkey", "service", links.Service, "login", req.Login)
		writeJSON(w, http.StatusOK, links)
	}
}

// passkeyLinks makes what req asks for. It fails with a *postern.Problem, among others.
func (n *Node) passkeyLinks(req PasskeyRequest) (PasskeyLinks, error) {
	t := n.server.table.Load()
	svc, err := n.passkeyService(req.Service)
	if err != nil {
		return PasskeyLinks{}, err
	}
	person, err := t.byLogin(req.Login)
	if err != nil {
		return PasskeyLinks{}, err
	}
	var owners []passkeyOwner
	for _, host := range slices.Sorted(maps.Keys(t.hosts)) {
		if at := t.hosts[host]; at != nil && at.Name == svc.Name {
			owners = append(owners, ownerAt(host, *person))
		}
	}
	if len(owners) == 0 {
		return PasskeyLinks{}, postern.NewProblem(http.StatusConflict, postern.CodeUnavailable,
			fmt.Sprintf("service %q has no address yet", svc.Name), "wait until `postern node status` shows one")
	}
	codes, expires, err := n.server.proofs.passkeys.invite(owners, time.Now())
	if err != nil {
		return PasskeyLinks{}, err
	}
	out := PasskeyLinks{Service: svc.Name, Required: svc.Require == postern.RequirePasskey}
	for i, o := range owners {
		out.Links = append(out.Links, PasskeyLink{
			PasskeyInvitation{o.Host, o.Login, o.Person, expires},
			t.origin(o.Host) + pathEnrol + "?" + url.Values{"code": {codes[i]}}.Encode(),
		})
	}
	return out, nil
}

// passkeyService returns the service of that name, or the one that is meant if there is
// none. It fails with a *postern.Problem.
func (n *Node) passkeyService(name string) (*service, error) {
	p := n.published.Load()
	if name == "" {
		meant := slices.DeleteFunc(slices.Clone(p.order), func(s *service) bool { return s.Require != postern.RequirePasskey })
		why := "several services require a passkey"
		if len(meant) == 0 {
			meant, why = p.order, "no service of this node requires a passkey yet"
		}
		if len(meant) != 1 {
			return nil, postern.NewProblem(http.StatusUnprocessableEntity, postern.CodeInvalid,
				why+", and it is not clear which one is meant", "name one with --service; `postern node status` lists them")
		}
		return meant[0], nil
	}
	if svc := p.byName[name]; svc != nil {
		return svc, nil
	}
	return nil, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
		fmt.Sprintf("this node publishes no service %q", name), "`postern node status` lists its services")
}

// byLogin returns the person with that login. It fails with a *postern.Problem.
func (t *table) byLogin(login string) (*postern.Person, error) {
	var found []*postern.Person
	for _, p := range t.people {
		if strings.EqualFold(p.Login, login) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			fmt.Sprintf("nobody with the login %q may open anything of this company", login),
			"on the coordinator: postern users list; postern users grant")
	}
	return nil, postern.NewProblem(http.StatusConflict, postern.CodeInvalid,
		fmt.Sprintf("the coordinator knows %d people with the login %q", len(found), login), "find out why: it should know one")
}

func (n *Node) removePasskey(w http.ResponseWriter, r *http.Request) {
	k, err := n.server.proofs.passkeys.remove(r.PathValue("id"))
	switch {
	case errors.Is(err, errPasskeyAbsent):
		refuse(w, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			fmt.Sprintf("there is no passkey %q here", r.PathValue("id")), "`postern node passkeys list` shows their ids"))
	case err != nil:
		n.log.Error("remove a passkey", "err", err)
		refuse(w, postern.NewProblem(http.StatusInternalServerError, postern.CodeInternal, err.Error(), "nothing was changed"))
	default:
		n.server.gate.recheck()
		n.log.Info("passkey removed", "server_name", k.Host, "user", k.Person, "passkey", k.ID)
		writeJSON(w, http.StatusOK, k.told())
	}
}

// ListPasskeys asks the node whose Socket has the given path for its Passkeys. It
// fails with ErrNotRunning if there is none, and so do the others.
func ListPasskeys(ctx context.Context, socket string) (out Passkeys, err error) {
	err = askLocal(ctx, socket, http.MethodGet, pathPasskeys, nil, &out)
	return out, err
}

// InvitePasskey has the node make links by which a person makes a passkey. What it
// refuses is a *postern.Problem.
func InvitePasskey(ctx context.Context, socket string, req PasskeyRequest) (out PasskeyLinks, err error) {
	err = askLocal(ctx, socket, http.MethodPost, pathPasskeyInvitations, req, &out)
	return out, err
}

// RemovePasskey has the node forget a passkey, and returns what it was. Whoever signed
// in with it has to use another. What it refuses is a *postern.Problem.
func RemovePasskey(ctx context.Context, socket, id string) (out Passkey, err error) {
	err = askLocal(ctx, socket, http.MethodDelete, pathPasskeys+"/"+url.PathEscape(id), nil, &out)
	return out, err
}
