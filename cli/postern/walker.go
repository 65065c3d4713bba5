package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
)

// A walker is a person at a browser that has no window: it keeps cookies, follows
// redirects and sends forms.
type walker struct{ hc *http.Client }

// newWalker returns a walker that trusts the certificates in caFile.
func newWalker(caFile string) (*walker, error) {
	hc, err := trusting(caFile)
	if err != nil {
		return nil, err
	}
	hc.Jar, err = cookiejar.New(nil)
	return &walker{hc}, err
}

// An arrival is the page that a walker ended at.
type arrival struct {
	url    *url.URL
	status int
	body   string
	tls    *tls.ConnectionState
}

// walk goes to where method and address lead in the end; form may be nil.
func (w *walker) walk(ctx context.Context, method, address string, form url.Values) (arrival, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return arrival{}, err
	}
	// As browsers say that a person goes there (Fetch Metadata).
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	req.Header.Set("Sec-Fetch-Site", "none")
	req.Header.Set("Accept", "text/html")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := w.hc.Do(req)
	if err != nil {
		return arrival{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return arrival{resp.Request.URL, resp.StatusCode, string(body), resp.TLS}, err
}

// accept takes an invitation, with a password that nobody will ever know, and is
// signed in from then on.
func (w *walker) accept(ctx context.Context, invite, name string) error {
	at, err := w.walk(ctx, http.MethodPost, invite, url.Values{"name": {name}, "password": {rand.Text()}})
	if err != nil {
		return err
	}
	if at.status != http.StatusOK || at.url.Path != "/" {
		return fmt.Errorf("the invitation led to %s with status %d", at.url, at.status)
	}
	return nil
}

// open has the portal hand the walker over to a tenant's service, whose first page
// has to be there at host.
func (w *walker) open(ctx context.Context, portal, tenant, service, host string) (arrival, error) {
	at, err := w.walk(ctx, http.MethodGet, portal+"/open/"+tenant+"/"+service, nil)
	if err != nil {
		return at, err
	}
	if at.status != http.StatusOK || at.url.Host != host {
		return at, fmt.Errorf("the portal led to %s with status %d, not to %s", at.url, at.status, host)
	}
	return at, nil
}

// refused checks that the portal does not hand the walker over.
func (w *walker) refused(ctx context.Context, portal, tenant, service string) (int, error) {
	at, err := w.walk(ctx, http.MethodGet, portal+"/open/"+tenant+"/"+service, nil)
	if err == nil && (at.status != http.StatusForbidden && at.status != http.StatusNotFound || "https://"+at.url.Host != portal) {
		err = fmt.Errorf("who may not open %s was led to %s with status %d", tenant, at.url, at.status)
	}
	return at.status, err
}

// patPattern finds a personal access token in a page.
var patPattern = regexp.MustCompile(`pst_pat_[A-Za-z0-9_-]+`)

// token makes a personal token at the node that answers at site, which the walker has
// opened.
func (w *walker) token(ctx context.Context, site, name string) (string, error) {
	at, err := w.walk(ctx, http.MethodPost, site+".well-known/postern/tokens", url.Values{"name": {name}, "scope": {"read"}, "days": {"7"}})
	if err != nil {
		return "", err
	}
	secret := patPattern.FindString(at.body)
	if secret == "" {
		return "", fmt.Errorf("%s gave no token, but status %d", at.url, at.status)
	}
	return secret, nil
}
