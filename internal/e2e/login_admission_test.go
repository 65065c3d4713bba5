//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/node"
)

// TestLoginAdmission closes a tenant to where nobody signed in from: alert 49, and
// not a byte at the node.
func TestLoginAdmission(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	link := e.invite("ann", "Ann")
	e.grant("ann", "acme", postern.GrantRequest{})
	e.mustAdmin("PUT", "/tenants/acme/admission", postern.AdmissionRequest{Mode: postern.AdmissionPortal}, nil)
	chrome := newBrowser(t, e.caFile())
	fox := newFirefox(t, e.caFile())
	p := chrome.person(t)

	// The gateway knows within moments.
	eventually(t, pageTime, func() error {
		_, err := e.clientFrom("127.0.9.1").Get(e.url("acme", "/"))
		if err == nil || !strings.Contains(err.Error(), "access denied") {
			return fmt.Errorf("who did not sign in is answered %v, want the alert access_denied", err)
		}
		return nil
	})
	p.fails(t, e.url("acme", "/"), "net::ERR_SSL_PROTOCOL_ERROR")
	if err := fox.open(e.url("acme", "/")); err == nil || !strings.Contains(err.Error(), "SSL_ERROR_ACCESS_DENIED_ALERT") {
		t.Errorf("Firefox says %v", err)
	}
	for i := range 20 {
		source := fmt.Sprintf("127.0.9.%d", i+2)
		if resp, err := e.clientFrom(source).Get(e.url("acme", "/")); err == nil {
			t.Errorf("from %s: status %d", source, resp.StatusCode)
		}
	}
	if page := p.open(t, e.url("globex", "/.well-known/postern/health")); page.Status != 200 {
		t.Errorf("the other tenant, which is open: status %d", page.Status)
	}
	// A node that comes up now cannot look at itself from outside, and says why.
	e.office["acme"].stop()
	if e.reached("acme", "127.0.9.") || !e.reached("acme", "127.0.0.1") { // all is said now: the node has ended
		t.Error("connections that were refused reached the node, or it tells of none")
	}
	e.startOffice("acme")
	e.routes("acme-office", node.RouteClosed)

	// A certificate authority comes from nowhere that one could know.
	if _, err := e.clientFrom("127.0.7.1", "acme-tls/1").Get(e.url("acme", "/")); err == nil || !strings.Contains(err.Error(), "no application protocol") {
		t.Errorf("a challenge gets %v, want the node's alert", err)
	}
	eventually(t, pageTime, func() error { // what a process says takes its time
		if !e.reached("acme", "127.0.7.1") {
			return errors.New("a challenge did not reach the node")
		}
		return nil
	})
	if _, err := e.clientFrom("127.0.7.1").Get(e.url("acme", "/")); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("who sent a challenge gets %v, want the alert access_denied", err)
	}

	// Who signs in at the portal is let through at once, from where they are.
	p.open(t, link)
	p.fill(t, "#password", annPassword)
	p.click(t, "#accept > button")
	p.arrives(t, e.portal("/"), "Acme Joinery")
	begin := time.Now()
	p.click(t, "#tile-acme--default h3 a")
	p.arrives(t, e.url("acme", "/"), "acme")
	noteFigure(t, "login", "from a tile to the page, by admission", time.Since(begin).Seconds(), "s")
	if _, err := e.clientFrom("127.0.9.1").Get(e.url("acme", "/")); err == nil {
		t.Error("a source where nobody signed in is let through, too")
	}

	// Programs have no portal: where they come from can be let through for good.
	allow := netip.MustParsePrefix("127.0.9.0/24")
	e.mustAdmin("PUT", "/tenants/acme/admission", postern.AdmissionRequest{Mode: postern.AdmissionList, Allowed: []netip.Prefix{allow}}, nil)
	eventually(t, pageTime, func() error {
		resp, err := e.clientFrom("127.0.9.1").Get(e.url("acme", "/"))
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("status %d, want the node's 401", resp.StatusCode)
		}
		if _, err := e.clientFrom("127.0.8.1").Get(e.url("acme", "/")); err == nil {
			return errors.New("what is not listed is let through")
		}
		return nil
	})
	eventually(t, pageTime, func() error {
		if !e.reached("acme", "127.0.9.1") {
			return errors.New("the node does not tell of what was let through")
		}
		return nil
	})
	if e.reached("acme", "127.0.9.2") || e.reached("acme", "127.0.8.") {
		t.Error("the node tells of connections that were refused")
	}
}

// reached reports whether a tenant's node tells of a connection from where source is
// the beginning of.
func (e *estate) reached(tenant, source string) bool {
	return strings.Contains(e.office[tenant].out.String(), "msg=connection gateway=") && strings.Contains(e.office[tenant].out.String(), "remote="+source)
}
