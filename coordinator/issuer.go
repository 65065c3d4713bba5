package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"postern"
)

// Limits of an external issuer.
const (
	maxIssuerRoles = 256 // groups that it maps
	maxIssuerText  = 512 // bytes of its URL, its client's id, a group
)

// Issuers returns the external issuers, by name.
func (c *Coordinator) Issuers(ctx context.Context) ([]Issuer, error) {
	var all []Issuer
	err := c.cfg.Store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.Issuers().All()
		return err
	})
	return all, err
}

// ClientSecret returns the secret of the deployment's client at i, "" if it has none.
func (c *Coordinator) ClientSecret(i Issuer) (string, error) {
	if len(i.ClientSecret) == 0 {
		return "", nil
	}
	secret, err := c.cfg.Authority.Open(i.ClientSecret, issuerContext(i.Name))
	if err != nil {
		return "", fmt.Errorf("client secret of issuer %q: %w", i.Name, err)
	}
	return string(secret), nil
}

// issuerContext is what the client secret of the issuer called name is sealed for.
func issuerContext(name string) string { return "issuer " + name }

// putIssuer makes an external issuer, or changes it.
func (ch *change) putIssuer(name string, req postern.IssuerRequest) (Issuer, error) {
	if err := postern.CheckLabel("issuer", name); err != nil {
		return Issuer{}, invalid(err, "choose a DNS label such as \"acme\"")
	}
	if err := checkIssuer(req); err != nil {
		return Issuer{}, err
	}
	if _, err := ch.Tenants().Get(req.Tenant); err != nil {
		return Issuer{}, noTenant(err, req.Tenant)
	}
	i := Issuer{
		Name: name, Title: req.Title, URL: req.URL, ClientID: req.ClientID, Tenant: req.Tenant,
		GroupsClaim: req.GroupsClaim, Roles: maps.Clone(req.Roles), Created: ch.now,
	}
	if i.Title == "" {
		i.Title = name
	}
	old, err := ch.Issuers().Get(name)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return Issuer{}, err
	case old.URL != i.URL || old.Tenant != i.Tenant:
		// Its subjects are known by it: another's would be taken for them.
		return Issuer{}, taken(fmt.Sprintf("there is an issuer %q of tenant %q at %s already", name, old.Tenant, old.URL),
			"remove it first, with its people's links, or choose another name")
	default:
		i.Created = old.Created
		if req.ClientSecret == "" && old.ClientID == i.ClientID {
			i.ClientSecret = old.ClientSecret
		}
	}
	if req.ClientSecret != "" {
		i.ClientSecret = ch.cfg.Authority.Seal([]byte(req.ClientSecret), issuerContext(name))
	}
	return i, errors.Join(ch.Issuers().Put(i), ch.audit("issuer.put", i.Tenant, name, i.URL))
}

// checkIssuer reports what is wrong with req but for its tenant.
func checkIssuer(req postern.IssuerRequest) error {
	u, err := url.Parse(req.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || len(req.URL) > maxIssuerText {
		return invalid(fmt.Errorf("%q is not the URL of an issuer", req.URL), "give the issuer as its discovery document does: https://HOST[/PATH]")
	}
	if req.ClientID == "" {
		return invalid(errors.New("the client id is missing"), "register a client at the issuer and give its id")
	}
	for what, text := range map[string]string{"title": req.Title, "client id": req.ClientID, "name of the groups claim": req.GroupsClaim} {
		if err := checkText(what, text); err != nil {
			return invalid(err, "")
		}
	}
	if len(req.ClientSecret) > maxIssuerText {
		return invalid(fmt.Errorf("the client secret has more than %d bytes", maxIssuerText), "")
	}
	if n := len(req.Roles); n == 0 || n > maxIssuerRoles {
		return invalid(fmt.Errorf("want roles for 1 to %d groups, not %d", maxIssuerRoles, n), "say who may come in; * is everybody")
	}
	for _, group := range slices.Sorted(maps.Keys(req.Roles)) {
		if group == "" || len(group) > maxIssuerText {
			return invalid(fmt.Errorf("group %q is empty or too long", group), "")
		}
		r := req.Roles[group]
		if _, err := checkRole(r.Role); err != nil {
			return err
		}
		if _, err := checkLabels("group", r.Groups, postern.MaxGroups); err != nil {
			return err
		}
	}
	return nil
}

// removeIssuer removes an external issuer with what it gave, and signs its people out.
func (ch *change) removeIssuer(name string) error {
	i, err := ch.Issuers().Get(name)
	if err != nil {
		return notFound(err, "issuer", name, "")
	}
	grants, err := ch.Grants().In(i.Tenant)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.Issuer != name {
			continue
		}
		ch.touch(g.Tenant)
		if err := ch.Grants().Delete(g.GrantKey); err != nil {
			return err
		}
	}
	links, err := ch.Links().From(name)
	if err != nil {
		return err
	}
	for _, l := range links {
		u, err := ch.Users().Get(l.User)
		if err != nil {
			return err
		}
		if err := errors.Join(ch.endSessions(&u), ch.Links().Delete(l.LinkKey)); err != nil {
			return err
		}
	}
	return errors.Join(ch.Issuers().Delete(name), ch.audit("issuer.remove", i.Tenant, name, fmt.Sprintf("%s, %d people", i.URL, len(links))))
}

// checkLocal refuses a password or a passkey to who was granted something by an
// external issuer: who is gone there would not be gone here.
func (ch *change) checkLocal(u User) error {
	grants, err := ch.Grants().Of(u.ID)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.Issuer == "" {
			continue
		}
		i, err := ch.Issuers().Get(g.Issuer)
		if err != nil {
			return err
		}
		return postern.NewProblem(http.StatusForbidden, postern.CodeForbidden,
			fmt.Sprintf("%s decides what this account may open", i.Title), "sign in with "+i.Title)
	}
	return nil
}
