//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern"
	"postern/node"
)

// base is the domain of all names in these tests; browsers and curl take
// .localhost for loopback (RFC 6761, section 6.3).
const base = "postern.localhost"

// A deployment is a coordinator and a gateway, as processes on loopback.
type deployment struct {
	t   testing.TB
	dir string   // coordinator/, gateway/, one a node
	env []string // of the coordinator and the nodes, beside the test's own

	coordinatorFlags []string            // beside those that all have
	behind           map[string][]string // what the command of the gateway, or of a node, comes behind, by name

	sockets []*os.File // that the gateway is handed

	control, https, http, udp int // ports

	names *nameServer // that the coordinator asks

	coordinator, gateway *process
	nodes                map[string]*process // those that runNode started last, by name
}

// bareDeployment returns a deployment in which nothing runs yet.
func bareDeployment(t testing.TB) *deployment {
	t.Helper()
	return &deployment{
		t: t, dir: t.TempDir(), names: newNameServer(t),
		control: freePort(t), https: freePort(t), http: freePort(t), udp: freePort(t),
	}
}

// newDeployment starts a coordinator and a gateway and waits for both.
func newDeployment(t testing.TB) *deployment {
	t.Helper()
	d := bareDeployment(t)
	d.startCoordinator()
	d.joinGateway()
	d.startGateway()
	return d
}

func (d *deployment) data(name string) string { return filepath.Join(d.dir, name) }

func (d *deployment) startCoordinator() {
	d.t.Helper()
	d.coordinator = start(d.t, "coordinator", d.env, append([]string{program("postern"), "coordinator", "run",
		"--data", d.data("coordinator"), "--domain", base, "--listen", loopback(d.control),
		"--https-port", strconv.Itoa(d.https), "--resolver", d.names.Addr, "--log-level", "debug"}, d.coordinatorFlags...)...)
	eventually(d.t, 20*time.Second, func() error {
		if d.coordinator.ended() {
			d.t.Fatal("the coordinator ended")
		}
		_, err := d.try("status", "--json")
		return err
	})
}

func (d *deployment) joinGateway() {
	d.t.Helper()
	var token postern.CreatedToken
	d.cli(&token, "tokens", "create", "--gateway")
	file := d.secretFile(token.Secret)
	// The token's URL leads through the gateway, as nodes are to go.
	must(d.t, program("postern"), "gateway", "join", "--data", d.data("gateway"), "--token-file", file,
		"--coordinator", "https://"+loopback(d.control))
}

func (d *deployment) startGateway() {
	d.t.Helper()
	d.runGateway("--http", loopback(d.http))
}

// unlimited are the flags of a gateway for tests that come in crowds.
var unlimited = []string{"--http", "", "--source-rate", "-1", "--source-conns", "-1", "--tenant-rate", "-1", "--tenant-conns", "-1"}

// startGatewayWithoutLimits is startGateway for tests that come in crowds.
func (d *deployment) startGatewayWithoutLimits() {
	d.t.Helper()
	d.runGateway(unlimited...)
}

// runGateway starts the gateway and waits until it knows where names lead.
func (d *deployment) runGateway(flags ...string) {
	d.t.Helper()
	d.launchGateway(append([]string{"--log-level", "debug"}, flags...)...)
	eventually(d.t, 20*time.Second, func() error {
		if d.gateway.ended() {
			d.t.Fatal("the gateway ended")
		}
		if !strings.Contains(d.gateway.out.String(), "map applied") {
			return errors.New("the gateway has no map")
		}
		return nil
	})
}

// launchGateway is runGateway that waits for nothing.
func (d *deployment) launchGateway(flags ...string) {
	d.t.Helper()
	d.gateway = startWith(d.t, "gateway", d.sockets, nil, slices.Concat(d.behind["gateway"], []string{program("postern"), "gateway", "run",
		"--data", d.data("gateway"), "--listen", loopback(d.https),
		"--udp", fmt.Sprintf(":%d", d.udp), "--advertise", loopback(d.udp), "--public", loopback(d.https)}, flags)...)
}

// gatewaySocket asks the gateway's socket, and decodes the answer into out.
func (d *deployment) gatewaySocket(path string, out any) error {
	text, err := askSocket(filepath.Join(d.data("gateway"), "gateway.sock"), path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, out)
}

// askSocket gets what there is at path on a role's socket.
func askSocket(socket, path string) ([]byte, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get("http://socket" + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return text, err
}

// cli runs an admin command and decodes its JSON into out, if not nil.
func (d *deployment) cli(out any, args ...string) {
	d.t.Helper()
	text, err := d.try(append(args, "--json")...)
	if err != nil {
		d.t.Fatal(err)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		d.t.Fatalf("%v: %v in %s", args, err, text)
	}
}

// try runs an admin command against the coordinator's socket.
func (d *deployment) try(args ...string) (string, error) {
	return run(d.t, "", slices.Concat([]string{program("postern")}, args, []string{"--data", d.data("coordinator")})...)
}

// tenant makes a tenant and returns the text of a join token for it.
func (d *deployment) tenant(name string) string {
	d.t.Helper()
	d.cli(nil, "tenants", "add", name, "--no-token")
	return d.token(name)
}

// token returns the text of a fresh join token.
func (d *deployment) token(tenant string) string {
	d.t.Helper()
	var token postern.CreatedToken
	d.cli(&token, "tokens", "create", "--tenant", tenant)
	return token.Secret
}

func (d *deployment) secretFile(secret string) string {
	d.t.Helper()
	f, err := os.CreateTemp(d.dir, "token")
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(secret); err != nil {
		d.t.Fatal(err)
	}
	return f.Name()
}

// node joins a node to a tenant, runs it, and waits until all it publishes can be
// reached through the gateway, by anybody. Each of publish is [NAME=]UPSTREAM.
func (d *deployment) node(token, name string, publish ...string) *process {
	d.t.Helper()
	d.join(token, name, publish...)
	p := d.runNode(name)
	d.ready(name)
	return p
}

// join joins a node, which then has yet to run.
func (d *deployment) join(token, name string, publish ...string) {
	d.t.Helper()
	args := []string{program("postern"), "node", "join", "--no-run", "--data", d.data(name), "--name", name, "--token-file", d.secretFile(token)}
	must(d.t, append(args, publicly(publish...)...)...)
}

// publicly returns the options that publish each [NAME=]UPSTREAM for anybody, who
// need not sign in.
func publicly(publish ...string) []string {
	var args []string
	for _, p := range publish {
		access := postern.AccessPublic
		if name, _, ok := strings.Cut(p, "="); ok && postern.CheckLabel("service", name) == nil {
			access = name + "=" + access
		}
		args = append(args, "--publish", p, "--access", access)
	}
	return args
}

// runNode starts a node that has joined.
func (d *deployment) runNode(name string) *process {
	d.t.Helper()
	p := start(d.t, name, d.env, append(slices.Clone(d.behind[name]), program("postern"), "node", "run", "--data", d.data(name), "--log-level", "debug")...)
	if d.nodes == nil {
		d.nodes = make(map[string]*process)
	}
	d.nodes[name] = p
	return p
}

// ready waits until the node's own check through the gateway has passed for all
// its routes.
func (d *deployment) ready(name string) {
	d.t.Helper()
	d.routes(name, node.RouteReady)
}

// routes waits until all routes of a node are in that state.
func (d *deployment) routes(name, state string) {
	d.t.Helper()
	eventually(d.t, 40*time.Second, func() error {
		text, err := run(d.t, "", program("postern"), "node", "status", "--data", d.data(name), "--json")
		if err != nil {
			return err
		}
		var status struct {
			Routes []struct{ Host, State, Error string }
		}
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			return err
		}
		if len(status.Routes) == 0 {
			return errors.New("no routes yet")
		}
		for _, r := range status.Routes {
			if r.State != state {
				return fmt.Errorf("%s is %s and not %s: %s", r.Host, r.State, state, r.Error)
			}
		}
		return nil
	})
}

// roots returns the private CA, the one thing that clients trust.
func (d *deployment) roots() *x509.CertPool {
	d.t.Helper()
	pool, err := poolOf(d.caFile())
	if err != nil {
		d.t.Fatal(err)
	}
	return pool
}

// poolOf returns the certificates in file as those to trust.
func poolOf(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if block, _ := pem.Decode(data); block == nil || !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return pool, nil
}

func (d *deployment) caFile() string {
	return filepath.Join(d.data("coordinator"), "authority", "ca.pem")
}

// url returns the address of a page of a tenant's or service's host.
func (d *deployment) url(host, path string) string {
	return fmt.Sprintf("https://%s.%s:%d%s", host, base, d.https, path)
}

// client returns an HTTP client that dials the gateway whatever the name, trusts
// the private CA alone, and speaks protos, HTTP/2 first if none are given.
func (d *deployment) client(protos ...string) *http.Client {
	c := clientOf(d.https, d.roots(), protos...)
	d.t.Cleanup(c.CloseIdleConnections)
	return c
}

// clientOf returns an HTTP client that dials a port of this machine, whatever the name.
func clientOf(port int, roots *x509.CertPool, protos ...string) *http.Client {
	if protos == nil {
		protos = []string{"h2", "http/1.1"}
	}
	return &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, loopback(port))
		},
		TLSClientConfig:     &tls.Config{RootCAs: roots, NextProtos: protos},
		ForceAttemptHTTP2:   protos[0] == "h2",
		MaxIdleConnsPerHost: 64,
	}}
}

// get fetches a page and returns its status and body.
func get(c *http.Client, url string) (int, string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// ports counts the ports that were given out, from anywhere below those that the system
// gives to whoever asks for any (32768 and above).
var ports = func() *atomic.Int32 { n := new(atomic.Int32); n.Store(11000 + rand.Int32N(15000)); return n }()

// freePort returns a port that is free, for TCP and UDP, and that nobody else was given.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := int(ports.Add(1))
		ln, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		pc, err := net.ListenPacket("udp", loopback(port))
		ln.Close()
		if err == nil {
			pc.Close()
			return port
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	return 0
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
