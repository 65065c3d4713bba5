//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/internal/acme/acmetest"
)

// A node that was switched off until its certificate had expired gets a new one as soon as
// it is back: the tunnel and the control stream do not hang on it (R22). The authority
// refuses three nonces of ten all along, and is down for a while, in which what is there
// is shown (R21).
func TestSurviveExpiredCertificate(t *testing.T) {
	t.Parallel()
	const life = 40 * time.Second
	c := newCertsOf(t, acmetest.Options{BadNonces: 30, Profiles: map[string]time.Duration{"default": life}})
	const host = "acme." + base
	c.node(c.tenant("acme"), "office", c.app.URL)
	first, err := c.shown(host)
	if err != nil {
		t.Fatal(err)
	}

	// The authority is down.
	c.ca.SetFault(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		return true
	})
	must(t, program("postern"), "node", "renew", host, "--data", c.data("office"))
	eventually(t, certsTime, func() error {
		if now, err := c.shown(host); err != nil || !now.Equal(first) {
			t.Fatalf("with the authority down browsers get %v, %v", now, err)
		}
		for _, cert := range c.routeOf(host).Certificates {
			if cert.Error != "" && cert.State != postern.CertificateExpired {
				return nil
			}
		}
		return fmt.Errorf("nobody is told: %+v", c.routeOf(host).Certificates)
	})

	// The node is switched off, and the authority is well again, meanwhile.
	c.nodes["office"].kill()
	c.ca.SetFault(nil)
	if _, err := c.shown(host); err == nil {
		t.Fatal("the node is switched off, and somebody has its certificate")
	}
	eventually(t, 2*life, func() error {
		if left := time.Until(first.NotAfter); left > 0 {
			return fmt.Errorf("the certificate is good for %v", left)
		}
		return nil
	})
	begin := time.Now()
	c.runNode("office")
	eventually(t, time.Minute+survivePatience, func() error {
		now, err := c.shown(host) // which a browser has to trust
		if err == nil && now.Equal(first) {
			err = fmt.Errorf("it is the one that expired at %v", first.NotAfter)
		}
		return err
	})
	recovered(t, "R22", "node with an expired certificate starts: a new one is shown", time.Minute, survivePatience, time.Since(begin))
	if page, err := c.get(host); err != nil || !strings.Contains(page, "the books of") {
		t.Errorf("got %q, %v", page, err)
	}
}
