//go:build e2e

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/node"
)

// TestRoadServices publishes everything that can be published, from two nodes of
// one tenant.
func TestRoadServices(t *testing.T) {
	d := newDeployment(t)
	token := d.tenant("acme")
	plain := newApplication(t, "plain")
	shared := []*application{newApplication(t, "shared on one"), newApplication(t, "shared on two")}

	sock := prepareApplication(t, "socket")
	path := filepath.Join(d.dir, "app.sock")
	listenAt(t, sock, "unix", path)
	sock.server.Start()

	secure := prepareApplication(t, "secure")
	secure.server.StartTLS()
	ca := d.data("upstream.pem")
	writePEM(t, ca, "CERTIFICATE", secure.server.Certificate().Raw)

	folder := d.data("folder")
	writeFile(t, filepath.Join(folder, "index.html"), "<!doctype html><title>a folder</title>")
	writeFile(t, filepath.Join(folder, "figures.csv"), "year,profit\n2025,1\n2026,2\n")
	writeFile(t, filepath.Join(folder, ".secret"), "dotfile")
	writeFile(t, d.data("outside"), "outside")
	if err := os.Symlink(d.data("outside"), filepath.Join(folder, "escape")); err != nil {
		t.Fatal(err)
	}

	d.join(token, "one", plain.url, "sock=unix:"+path, "shared="+shared[0].url, "secure="+secure.server.URL)
	d.editServices("one", func(s *node.Service) {
		if s.Name == "secure" {
			s.UpstreamCA = ca
		}
	})
	one := d.runNode("one")
	d.ready("one")
	d.node(d.token("acme"), "two", "files="+folder, "shared="+shared[1].url)

	c := d.client()
	for host, want := range map[string]string{
		"acme": "plain", "sock.acme": "socket", "secure.acme": "secure", "files.acme": "<!doctype html><title>a folder</title>",
	} {
		t.Run(host, func(t *testing.T) {
			if got := fetch(t, c, d.url(host, "/"), http.StatusOK); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("folder", func(t *testing.T) { d.testFolder(t, c) })
	t.Run("two nodes, one service", func(t *testing.T) {
		url := d.url("shared.acme", "/")
		if got := fetch(t, d.client(), url, http.StatusOK); !strings.HasPrefix(got, "shared on ") {
			t.Errorf("got %q, want one of those that share", got)
		}
		one.kill()
		begin := time.Now()
		if got := fetch(t, d.client(), url, http.StatusOK); got != "shared on two" {
			t.Errorf("with one node dead: got %q, want %q", got, "shared on two")
		}
		noteFigure(t, "road", "answer of the second node, the first dead", time.Since(begin).Seconds(), "s")
	})
}

// testFolder asks for what a folder of files has and for what it must not give.
func (d *deployment) testFolder(t *testing.T, c *http.Client) {
	for _, test := range []struct {
		path, ranged string
		status       int
		body, media  string
	}{
		{path: "/figures.csv", status: 200, body: "year,profit\n2025,1\n2026,2\n", media: "text/csv; charset=utf-8"},
		{path: "/figures.csv", ranged: "bytes=5-10", status: 206, body: "profit", media: "text/csv; charset=utf-8"},
		{path: "/.secret", status: 404},
		{path: "/escape", status: 404},
		{path: "/../outside", status: 404},
		{path: "/%2e%2e/outside", status: 404},
		{path: "/nothing", status: 404},
	} {
		t.Run(test.path+test.ranged, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodGet, d.url("files.acme", test.path), nil)
			if err != nil {
				t.Fatal(err)
			}
			if test.ranged != "" {
				req.Header.Set("Range", test.ranged)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body := readAll(t, resp)
			if resp.StatusCode != test.status || test.body != "" && body != test.body {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, test.status, test.body)
			}
			if got := resp.Header.Get("Content-Type"); test.media != "" && got != test.media {
				t.Errorf("type: got %q, want %q", got, test.media)
			}
			if strings.Contains(body, "outside") || strings.Contains(body, "dotfile") {
				t.Errorf("got what must not be given: %q", body)
			}
		})
	}
}

// TestRoadOwnCertificate serves with a certificate of another CA than ours, and
// changes it while connections come.
func TestRoadOwnCertificate(t *testing.T) {
	d := newDeployment(t)
	app := newApplication(t, "acme")
	ca := newTestCA(t)
	cert, key := d.data("own.pem"), d.data("own.key")
	ca.issue(t, cert, key, 1, "acme."+base)
	must(t, program("postern"), "node", "join", "--no-run", "--data", d.data("office"), "--name", "office",
		"--token-file", d.secretFile(d.tenant("acme")), "--publish", app.url, "--access", "public", "--cert", cert, "--key", key)
	d.runNode("office")
	d.ready("office")

	serial := func() (int64, error) { return d.servedSerial("acme."+base, ca.pool) }
	if got, err := serial(); err != nil || got != 1 {
		t.Fatalf("got certificate %d and %v, want 1", got, err)
	}
	ca.issue(t, cert, key, 2, "acme."+base)
	eventually(t, 30*time.Second, func() error {
		got, err := serial()
		if err == nil && got != 2 {
			err = fmt.Errorf("certificate %d is served, want 2", got)
		}
		return err
	})
	// What is no certificate for the name changes nothing: it is reported, and
	// the one before it stays.
	ca.issue(t, cert, key, 3, "globex."+base)
	eventually(t, 30*time.Second, func() error {
		if _, err := serial(); err != nil { // the files are looked at when somebody comes
			return err
		}
		out := must(t, program("postern"), "node", "status", "--data", d.data("office"), "--json")
		var status node.Status
		if err := json.Unmarshal([]byte(out), &status); err != nil {
			return err
		}
		if c := status.Routes[0].Certificate; c == nil || c.Error == "" {
			return fmt.Errorf("the bad certificate is not reported: %+v", c)
		}
		return nil
	})
	if got, err := serial(); err != nil || got != 2 {
		t.Errorf("beside a bad file: got certificate %d and %v, want 2", got, err)
	}
}

// servedSerial returns the serial number of the certificate that browsers are
// shown at host, which must lead to roots.
func (d *deployment) servedSerial(host string, roots *x509.CertPool) (int64, error) {
	c, err := tls.Dial("tcp", loopback(d.https), &tls.Config{ServerName: host, RootCAs: roots})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// TestRoadCustomHost reaches a tenant at a name of its own, outside the base domain, once
// DNS shows that it is the tenant's, and not before.
func TestRoadCustomHost(t *testing.T) {
	d := newDeployment(t)
	app := newApplication(t, "acme")
	ca := newTestCA(t)
	cert, key := d.data("own.pem"), d.data("own.key")
	const host = "books.acme.test"
	ca.issue(t, cert, key, 1, "acme."+base, host)
	token := d.tenant("acme")
	var route postern.RouteState
	d.cli(&route, "routes", "add", host, "--tenant", "acme")
	if route.Host != host || route.Kind != "custom" || route.State != postern.StateUnproven {
		t.Errorf("got route %+v, want the custom one for %s, unproven", route, host)
	}
	must(t, program("postern"), "node", "join", "--no-run", "--data", d.data("office"), "--name", "office",
		"--token-file", d.secretFile(token), "--publish", app.url, "--access", "public", "--cert", cert, "--key", key)
	d.runNode("office")
	eventually(t, 30*time.Second, func() error {
		_, err := d.servedSerial("acme."+base, ca.pool)
		return err
	})
	if _, err := d.servedSerial(host, ca.pool); err == nil {
		t.Error("the name is served before it is proven")
	}
	d.prove(host, "acme")
	eventually(t, 30*time.Second, func() error {
		_, err := d.servedSerial(host, ca.pool)
		return err
	})
}

// editServices changes what a node that does not run will publish.
func (d *deployment) editServices(name string, edit func(*node.Service)) {
	d.t.Helper()
	path := filepath.Join(d.data(name), "services.json")
	data, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	var services []node.Service
	if err := json.Unmarshal(data, &services); err != nil {
		d.t.Fatal(err)
	}
	for i := range services {
		edit(&services[i])
	}
	if data, err = json.Marshal(services); err != nil {
		d.t.Fatal(err)
	}
	writeFile(d.t, path, string(data))
}

// listenAt has an application that was not started yet listen elsewhere.
func listenAt(t testing.TB, a *application, network, addr string) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	a.server.Listener.Close()
	a.server.Listener = ln
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
