//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/internal/acme/acmetest"
	"postern/internal/dnscheck"
	"postern/node"
)

// certsTime bounds how long a certificate may take, real processes and all.
const certsTime = 60 * time.Second

// A certs is a deployment whose certificates come from a public authority, which asks
// DNS for CAA records before it gives one.
type certs struct {
	*deployment
	ca  *acmetest.CA
	app *httptest.Server
}

func newCerts(t *testing.T) *certs {
	t.Helper()
	return newCertsOf(t, acmetest.Options{})
}

// newCertsOf is newCerts with an authority that is otherwise as o says.
func newCertsOf(t *testing.T, o acmetest.Options) *certs {
	t.Helper()
	d := bareDeployment(t)
	c := &certs{deployment: d}
	resolver, err := dnscheck.New(d.names.Addr)
	if err != nil {
		t.Fatal(err)
	}
	o.Port, o.CAA = d.https, func(host, account string) error {
		set, err := resolver.CAA(context.Background(), host)
		if err != nil {
			return err
		}
		return set.Permits(dnscheck.Wish{Authority: "ca.example", Account: account, Method: "tls-alpn-01"})
	}
	c.ca = acmetest.Start(t, o)
	d.coordinatorFlags = []string{"--acme-directory", c.ca.URL, "--acme-root", c.file("acme-root.pem", c.ca.Roots),
		"--email", "ops@postern.localhost"}
	c.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "the books of ", r.Host) }))
	t.Cleanup(c.app.Close)
	d.startCoordinator()
	d.joinGateway()
	d.startGateway()
	return c
}

// file writes data to a file of the deployment and returns its path.
func (c *certs) file(name string, data []byte) string {
	c.t.Helper()
	path := c.data(name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// trusted returns the roots that browsers have, which the authority's certificates lead to.
func (c *certs) trusted() *x509.CertPool {
	c.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.ca.Issuing()) {
		c.t.Fatal("the authority has no root")
	}
	return pool
}

// shown does a TLS handshake for host at the gateway's port and returns the leaf, if it
// is trusted.
func (c *certs) shown(host string) (*x509.Certificate, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: c.trusted()}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", loopback(c.https))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// status is what a node says of itself.
func (c *certs) status(name string) node.Status {
	c.t.Helper()
	s, err := c.tryStatus(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// tryStatus is status for a node that may not run yet.
func (c *certs) tryStatus(name string) (s node.Status, err error) {
	text, err := run(c.t, "", program("postern"), "node", "status", "--data", c.data(name), "--json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// routeOf is what the coordinator says of host.
func (c *certs) routeOf(host string) (r postern.RouteState) {
	c.t.Helper()
	c.cli(&r, "routes", "match", host)
	return r
}

// get fetches the first page at host as a browser that trusts the authority would.
func (c *certs) get(host string) (string, error) {
	hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, loopback(c.https))
		},
		TLSClientConfig: &tls.Config{RootCAs: c.trusted()}, DisableKeepAlives: true,
	}}
	_, body, err := get(hc, fmt.Sprintf("https://%s:%d/", host, c.https))
	return body, err
}

// TestCertsRoad: a node and the portal get certificates that browsers trust, renew them
// when the authority says and when somebody asks, and keep them when it refuses.
func TestCertsRoad(t *testing.T) {
	c := newCerts(t)
	c.node(c.tenant("acme"), "office", c.app.URL)
	const host, portal = "acme." + base, "portal." + base
	first, err := c.shown(host)
	if err != nil || !slices.Equal(first.DNSNames, []string{host}) {
		t.Fatalf("shown for %s: %v, %v", host, first, err)
	}
	eventually(t, certsTime, func() error { _, err := c.shown(portal); return err })

	t.Run("browser", func(t *testing.T) {
		b := newBrowser(t, c.file("issuing.pem", c.ca.Issuing()))
		if page := b.open(t, c.url("acme", "/")); page.Status != 200 || page.Protocol != "h2" {
			t.Errorf("got %+v", page)
		}
		if text := b.text(t, "body"); !strings.Contains(text, "the books of") {
			t.Errorf("the page says %q", text)
		}
		b.open(t, c.url("portal", "/"))
		b.screenshot(t, "certs-portal")
	})

	t.Run("told", func(t *testing.T) {
		eventually(t, certsTime, func() error {
			for _, cert := range c.routeOf(host).Certificates {
				if cert.State == postern.CertificateValid && cert.Source == postern.SourceACME && cert.SPKI != "" && cert.Account != "" {
					return nil
				}
			}
			return fmt.Errorf("the coordinator knows of %+v", c.routeOf(host).Certificates)
		})
		held := c.status("office").Routes[0].Certificate
		if held.Source != postern.SourceACME || len(held.Records) < 2 || !strings.Contains(held.Records[0], "accounturi="+held.Account) {
			t.Errorf("the node says %+v", held)
		}
		text := must(t, program("postern"), "node", "status", "--data", c.data("office"))
		for _, want := range []string{"acme", held.Account, "128 issue", "SHA-256 " + held.SPKI} {
			if !strings.Contains(text, want) {
				t.Errorf("node status lacks %q:\n%s", want, text)
			}
		}
	})

	t.Run("verified", func(t *testing.T) {
		url := c.url("acme", "")
		args := []string{"verify", url, "--ca", c.data("issuing.pem"), "--connect", loopback(c.https)}
		must(t, append([]string{program("postern")}, args...)...)
		if out, err := c.try(append(args, "--node", "--identity", c.status("office").Member.Identity.String())...); err != nil || !strings.Contains(out, "holds this very key") {
			t.Errorf("verify --node: %v\n%s", err, out)
		}
		if out, err := c.try(append(args, "--node", "--identity", postern.NewIdentityPrivate().Public().String())...); err == nil {
			t.Errorf("verified by another identity:\n%s", out)
		}
		must(t, program("postern"), "verify", url, "--connect", loopback(c.https), "--local", "--data", c.data("office"), "--ca", c.data("issuing.pem"))
		if out, err := run(t, "", program("postern"), "doctor", "--data", c.data("office"), "--resolver", c.names.Addr); err != nil {
			t.Errorf("doctor: %v\n%s", err, out)
		}
	})

	t.Run("renewed when the authority says", func(t *testing.T) {
		c.ca.SetWindow(func(string) (acmetest.Window, bool) {
			return acmetest.Window{Start: time.Now().Add(-2 * time.Hour), End: time.Now().Add(-time.Hour)}, true
		})
		defer c.ca.SetWindow(nil)
		// It asks once an hour; a start asks at once.
		c.restart("office")
		c.renewed(host, first)
		if !c.ca.Replaced(first) {
			t.Error("the order did not say which certificate it replaces (RFC 9773, section 5)")
		}
	})

	t.Run("renewed by hand", func(t *testing.T) {
		before, err := c.shown(host)
		if err != nil {
			t.Fatal(err)
		}
		must(t, program("postern"), "node", "renew", host, "--data", c.data("office"))
		c.renewed(host, before)
	})

	t.Run("refused", func(t *testing.T) {
		before, err := c.shown(host)
		if err != nil {
			t.Fatal(err)
		}
		c.ca.SetFault(func(resource string, w http.ResponseWriter, r *http.Request) bool {
			if resource != acmetest.NewOrder {
				return false
			}
			w.Header().Set("Retry-After", "3600")
			acmetest.Problem(w, http.StatusTooManyRequests, "rateLimited", "too many certificates already issued")
			return true
		})
		must(t, program("postern"), "node", "renew", host, "--data", c.data("office"))
		const words = "urn:ietf:params:acme:error:rateLimited: too many certificates already issued"
		eventually(t, certsTime, func() error {
			for _, cert := range c.routeOf(host).Certificates {
				if strings.Contains(cert.Error, words) && cert.State == postern.CertificateValid {
					return nil
				}
			}
			return fmt.Errorf("the coordinator knows of %+v", c.routeOf(host).Certificates)
		})
		if got := c.status("office").Routes[0].Certificate; !strings.Contains(got.Error, words) || got.Waiting == "" {
			t.Errorf("the node says %+v", got)
		}
		if now, err := c.shown(host); err != nil || !now.Equal(before) {
			t.Errorf("the certificate held before is not shown: %v", err)
		}
		c.ca.SetFault(nil)
	})
}

// renewed waits until host shows another certificate than before.
func (c *certs) renewed(host string, before *x509.Certificate) {
	c.t.Helper()
	eventually(c.t, certsTime, func() error {
		now, err := c.shown(host)
		if err == nil && now.Equal(before) {
			err = errors.New("still the same certificate")
		}
		return err
	})
}

// restart ends a node and starts it again.
func (c *certs) restart(name string) {
	c.t.Helper()
	c.nodes[name].stop()
	c.runNode(name)
}

// TestCertsTwoNodes: of two nodes that share a name each gets a certificate of its own,
// since an authority is led to the one that asked; and neither takes the other's for a
// stranger's.
func TestCertsTwoNodes(t *testing.T) {
	c := newCerts(t)
	token := c.tenant("acme")
	c.join(token, "one", c.app.URL)
	c.join(c.token("acme"), "two", c.app.URL)
	c.runNode("one")
	c.runNode("two")
	c.ready("one")
	c.ready("two")
	const host = "acme." + base
	eventually(t, certsTime, func() error {
		keys := map[string]bool{}
		for _, cert := range c.routeOf(host).Certificates {
			if cert.State == postern.CertificateValid && cert.Alarm == "" {
				keys[cert.SPKI] = true
			}
		}
		if len(keys) != 2 {
			return fmt.Errorf("want two valid certificates with a key each: %+v", c.routeOf(host).Certificates)
		}
		return nil
	})
	for _, name := range []string{"one", "two"} {
		must(t, program("postern"), "node", "renew", host, "--data", c.data(name))
	}
	eventually(t, certsTime, func() error {
		for _, name := range []string{"one", "two"} {
			if r := c.status(name).Routes[0]; r.State != node.RouteReady || r.Certificate.Error != "" || r.Certificate.Waiting != "" {
				return fmt.Errorf("%s: %+v, certificate %+v", name, r, r.Certificate)
			}
		}
		return nil
	})
	if n := c.ca.Requests()[acmetest.Finalize]; n < 4 {
		t.Errorf("the authority was asked to sign %d times, want at least 4", n)
	}
	var audit []postern.AuditEntry
	c.cli(&audit, "audit", "list", "--action", "certificate.alarm")
	if len(audit) > 0 {
		t.Errorf("there was an alarm: %+v", audit)
	}
}

// TestCertsCustomDomain: a name of the customer's own is served once DNS shows whose it
// is, with a certificate that their node got, and graded by who else could get one.
func TestCertsCustomDomain(t *testing.T) {
	c := newCerts(t)
	c.node(c.tenant("acme"), "office", c.app.URL)
	c.tenant("globex")
	const host = "erp.acme.test"
	c.cli(nil, "routes", "add", host, "--tenant", "globex") // who is first is not who has it
	var added postern.RouteState
	c.cli(&added, "routes", "add", host, "--tenant", "acme")
	if added.State != postern.StateUnproven || len(added.Records) == 0 {
		t.Fatalf("added: %+v", added)
	}
	c.names.add(t, host+". A 127.0.0.1")
	if _, err := c.shown(host); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("before the proof: %v", err)
	}
	if out, err := c.try("routes", "check", host, "--tenant", "acme"); err == nil || !strings.Contains(out, "MISSING") {
		t.Errorf("routes check before the proof: %v\n%s", err, out)
	}
	c.prove(host, "acme")
	eventually(t, certsTime, func() error { _, err := c.shown(host); return err })
	if body, err := c.get(host); err != nil || !strings.Contains(body, host) {
		t.Errorf("the page says %q, %v", body, err)
	}
	if out, err := c.try("routes", "check", host, "--tenant", "globex"); err == nil {
		t.Errorf("the other company's claim is content:\n%s", out)
	}

	// The records that the coordinator shows make the name nobody else's.
	eventually(t, certsTime, func() error {
		if r := c.routeOf(host); len(r.Certificates) == 0 || r.Certificates[0].Account == "" || r.Certificates[0].State != postern.CertificateValid {
			return fmt.Errorf("the coordinator knows of %+v", r.Certificates)
		}
		return nil
	})
	for _, r := range c.routeOf(host).Records {
		if r.Type == "CAA" {
			c.names.add(t, r.Name+". CAA "+r.Value)
		}
	}
	out, err := c.try("routes", "check", host, "--tenant", "acme")
	if err != nil || !strings.Contains(out, "grade B") || strings.Contains(out, "MISSING") {
		t.Errorf("routes check: %v\n%s", err, out)
	}
	if out, err := run(t, "", program("postern"), "doctor", host, "--data", c.data("office"), "--resolver", c.names.Addr); err != nil || !strings.Contains(out, "grade B") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	before, err := c.shown(host)
	if err != nil {
		t.Fatal(err)
	}
	must(t, program("postern"), "node", "renew", host, "--data", c.data("office"))
	c.renewed(host, before) // the node's own account is the one that is let in
}
