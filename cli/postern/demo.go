package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/internal/datadir"
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "try everything on this machine, without root or internet", Action: demoAction,
		Description: "It starts a coordinator, a gateway, two nodes and an application behind each as processes of their own, " +
			"for two companies, acme and globex, and invites three people with different rights, by links that sign them in. " +
			"It stays until Ctrl-C and leaves nothing behind. With --check it signs in at both companies through the whole road " +
			"and exits with 0 or 1.",
		UsageText: "make demo\nmake demo ARGS=--check\npostern demo --ledger build/ledger",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "ledger", Usage: "`PATH` of the application (ledger beside this program if not given)"},
			&cli.BoolFlag{Name: "check", Usage: "sign in at each company and ask its application something, then exit"},
			&cli.BoolFlag{Name: "verbose", Usage: "show the log of every process"},
		},
	}
}

// demoBase is the demo's domain. Names below localhost are loopback to browsers
// and curl, without DNS (RFC 6761, section 6.3).
const demoBase = "postern.localhost"

// demoPatience is how long the demo waits for anything to become ready.
const demoPatience = 60 * time.Second

// A company is one of the demo's tenants.
type company struct {
	name, title string
	documents   bool   // whether its node has a folder for the auditor, too
	ledger      string // URL of the application itself
	url         string // as a browser sees it
	file        string // that says what its node publishes
}

// A demo is the whole road on one machine.
type demo struct {
	dir       string // of all state; removed at the end
	cast      *cast
	admin     *admin
	https     int // ports on loopback
	control   int
	udp       int
	companies []*company
	invites   map[string]string // URLs, by login
}

func demoAction(c *cli.Context) (err error) {
	if _, err := operands(c); err != nil {
		return err
	}
	if err := checkBuild(); err != nil {
		return err
	}
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		return err
	}
	ledger := cmp.Or(c.String("ledger"), filepath.Join(filepath.Dir(self), "ledger"))
	if ledger, err = filepath.Abs(ledger); err != nil {
		return err
	}
	if _, err := os.Stat(ledger); err != nil {
		return fail("build it with `make build`, or name it with --ledger PATH", fmt.Errorf("the demo's application: %w", err))
	}
	// A second Ctrl-C must not end us before we have tidied up, which takes no
	// longer than grace.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)
	dir, err := os.MkdirTemp("", "postern-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{dir: dir, cast: newCast(self, dir), companies: []*company{
		{name: "acme", title: "Acme Joinery"}, {name: "globex", title: "Globex Trading", documents: true},
	}, invites: map[string]string{}}
	if c.Bool("verbose") {
		d.cast.show = c.App.ErrWriter
	}
	defer d.cast.stop()
	// A process that dies takes the demo with it.
	ctx, cancel := context.WithCancelCause(c.Context)
	defer cancel(nil)
	d.cast.died = func(err error) { cancel(err) }

	err = d.play(ctx, c, ledger)
	if c.Context.Err() != nil {
		return nil // Ctrl-C
	}
	return cause(ctx, err)
}

// cause prefers the reason for which ctx was cancelled to what that broke.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// play is the demo from its first process to its end.
func (d *demo) play(ctx context.Context, c *cli.Context, ledger string) error {
	fmt.Fprintln(c.App.ErrWriter, "Starting a coordinator, a gateway, two nodes and two applications …")
	if err := d.findPorts(); err != nil {
		return err
	}
	steps := []func() error{
		func() error { return d.startCoordinator(ctx) },
		func() error { return d.startGateway(ctx) },
		func() error { return d.startLedgers(ctx, ledger) },
		func() error { return d.startNodes(ctx) },
		func() error { return d.invite(ctx) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	hc, err := d.browser()
	if err != nil {
		return err
	}
	defer hc.CloseIdleConnections()
	for _, v := range d.companies {
		url := v.url + ".well-known/postern/health"
		if err := d.await(ctx, url, func(ctx context.Context) error { return getOK(ctx, hc, url) }); err != nil {
			return err
		}
	}
	if err := d.await(ctx, "all routes ready", d.routesReady); err != nil {
		return err
	}
	if c.Bool("check") {
		return d.check(ctx, c.App.Writer)
	}
	token, err := d.personalToken(ctx)
	if err != nil {
		return err
	}
	if err := d.print(ctx, c.App.Writer, token); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Fprintln(c.App.ErrWriter, "\nEnding …")
	return context.Cause(ctx)
}

// caFile is the deployment's private CA, for whoever wants to trust it.
func (d *demo) caFile() string { return d.data("ca.pem") }

// browser returns a client that trusts the demo's private CA, whose certificate
// it puts where everybody can find it.
func (d *demo) browser() (*http.Client, error) {
	pem, err := os.ReadFile(filepath.Join(d.data("coordinator"), "authority", "ca.pem"))
	if err != nil {
		return nil, err
	}
	if err := datadir.Write(d.caFile(), pem); err != nil {
		return nil, err
	}
	return trusting(d.caFile())
}

// trusting returns a client that trusts the certificates in file and no others.
func trusting(file string) (*http.Client, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: dialLocalhost, TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}}, nil
}

func getOK(ctx context.Context, hc *http.Client, url string) error {
	_, _, err := get(ctx, hc, url)
	return err
}

// maxAnswer bounds what the demo reads of an answer, in bytes.
const maxAnswer = 1 << 20

// get returns the body of a 200 answer, and of TLS what there was.
func get(ctx context.Context, hc *http.Client, url string) ([]byte, *tls.ConnectionState, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return body, resp.TLS, err
}

func (d *demo) routesReady(ctx context.Context) error {
	routes, err := fetch[postern.RouteState](d.admin, "/routes")(ctx)
	if err != nil {
		return err
	}
	nodes, err := fetch[postern.NodeState](d.admin, "/nodes")(ctx)
	if err != nil {
		return err
	}
	want, ready := 2*len(d.companies), 0
	for _, v := range d.companies {
		if v.documents {
			want++
		}
	}
	for _, r := range routes {
		if r.State == postern.StateReady {
			ready++
		}
	}
	for _, n := range nodes {
		if n.State == postern.StateReady {
			ready++
		}
	}
	if ready != want {
		return fmt.Errorf("%d of %d nodes and routes are ready", ready, want)
	}
	return nil
}

// print tells what there is to see; token is a personal token for a program, good at
// the first company.
func (d *demo) print(ctx context.Context, w io.Writer, token string) error {
	nodes, err := fetch[postern.NodeState](d.admin, "/nodes")(ctx)
	if err != nil {
		return err
	}
	routes, err := fetch[postern.RouteState](d.admin, "/routes")(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\nTwo companies, each with its own application on its own node:")
	fmt.Fprintln(w)
	for _, v := range d.companies {
		fmt.Fprintf(w, "  %-16s%s\n", v.title, v.url)
	}
	fmt.Fprintf(w, "\nThree people. Each link lets one of them in, once; give each a browser window of\n"+
		"its own, such as a private one. Afterwards they sign in at %s/\n", d.portal())
	for _, p := range demoPeople {
		fmt.Fprintf(w, "\n  %s %s\n  %s\n", p.name, p.sees, d.invites[p.login])
	}
	fmt.Fprintf(w, "\nA program, in another terminal, with a personal token that somebody made at the node:\n\n"+
		"  curl --cacert %s -H 'Authorization: Bearer %s' %sapi/companies\n", d.caFile(), token, d.companies[0].url)
	fmt.Fprintf(w, "\nA browser warns until it trusts the demo's own CA, which is good for names\nbelow %s only:\n\n", demoBase)
	fmt.Fprintf(w, "  Chromium  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n postern-demo \\\n              -i %s\n", d.caFile())
	fmt.Fprintln(w, "            and afterwards: certutil -d sql:$HOME/.pki/nssdb -D -n postern-demo")
	fmt.Fprintln(w, "  Firefox   Settings, Certificates, View, Authorities, Import: the same file")
	fmt.Fprintln(w, "\nWhat the nodes publish is said in files. Change one: its node and the portal follow.")
	fmt.Fprintln(w)
	for _, v := range d.companies {
		fmt.Fprintf(w, "  %-16s%s\n", v.title, v.file)
	}
	fmt.Fprintln(w, "\nWhat the operator sees:")
	data := "--data " + d.data("coordinator")
	fmt.Fprintf(w, "\n$ %s nodes list %s\n", os.Args[0], data)
	if err := write(w, "table", nodes, nodeRows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n$ %s routes list %s\n", os.Args[0], data)
	if err := write(w, "table", routes, routeRows); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nCtrl-C ends it and removes everything.")
	return nil
}
