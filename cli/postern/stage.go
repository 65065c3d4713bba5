package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postern"
)

// findPorts chooses ports that are free at this moment, 8443 for browsers if it
// is one of them.
func (d *demo) findPorts() error {
	d.https = 8443
	if !portFree(d.https) {
		d.https = 0
	}
	for _, port := range []*int{&d.https, &d.control} {
		if *port != 0 {
			continue
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer ln.Close() // not before all are chosen
		*port = ln.Addr().(*net.TCPAddr).Port
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	d.udp = conn.LocalAddr().(*net.UDPAddr).Port
	return nil
}

func portFree(port int) bool {
	ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

func (d *demo) data(role string) string { return filepath.Join(d.dir, role) }

func local(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func (d *demo) startCoordinator(ctx context.Context) error {
	// Nodes go through the gateway, as they would from an office.
	err := d.cast.start("coordinator", nil, d.cast.self, "coordinator", "run", "--data", d.data("coordinator"),
		"--domain", demoBase, "--listen", local(d.control), "--https-port", strconv.Itoa(d.https))
	if err != nil {
		return err
	}
	d.admin = socketAdmin(filepath.Join(d.data("coordinator"), postern.AdminSocket))
	return d.await(ctx, "the coordinator", func(ctx context.Context) error {
		return d.admin.call(ctx, http.MethodGet, "/status", nil, nil)
	})
}

// token returns a fresh join token as the environment of who is to use it.
func (d *demo) token(ctx context.Context, req postern.TokenRequest) ([]string, error) {
	var t postern.CreatedToken
	err := d.admin.call(ctx, http.MethodPost, "/tokens", req, &t)
	return []string{joinTokenEnv + "=" + t.Secret}, err
}

func (d *demo) startGateway(ctx context.Context) error {
	env, err := d.token(ctx, postern.TokenRequest{Role: postern.RoleGateway})
	if err != nil {
		return err
	}
	err = d.cast.do(ctx, "gateway-join", env, d.cast.self, "gateway", "join", "--data", d.data("gateway"),
		"--name", "door", "--coordinator", "https://"+local(d.control))
	if err != nil {
		return err
	}
	err = d.cast.start("gateway", nil, d.cast.self, "gateway", "run", "--data", d.data("gateway"),
		"--listen", local(d.https), "--http", "", "--udp", ":"+strconv.Itoa(d.udp),
		"--advertise", local(d.udp), "--public", local(d.https))
	if err != nil {
		return err
	}
	return d.await(ctx, "the gateway", func(ctx context.Context) error {
		gateways, err := fetch[postern.GatewayState](d.admin, "/gateways")(ctx)
		if err == nil && (len(gateways) != 1 || gateways[0].State != postern.StateReady || gateways[0].Endpoint == "") {
			err = errors.New("not ready yet")
		}
		return err
	})
}

func (d *demo) startLedgers(ctx context.Context, ledger string) error {
	for _, v := range d.companies {
		name := v.name + "-ledger"
		err := d.cast.start(name, nil, ledger, "-listen", "127.0.0.1:0", "-data", d.data(name+".db"), "-sample", v.name, "-title", v.title, "-trust-postern")
		if err != nil {
			return err
		}
		err = d.await(ctx, name, func(context.Context) error {
			said, err := os.ReadFile(d.cast.log(name))
			if err != nil {
				return err
			}
			_, rest, _ := strings.Cut(string(said), "ledger: listening on ")
			url, _, whole := strings.Cut(rest, "\n")
			if !whole {
				return errors.New("it does not say yet where it listens")
			}
			v.ledger = url
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startNodes(ctx context.Context) error {
	for _, v := range d.companies {
		if err := d.admin.call(ctx, http.MethodPost, "/tenants", postern.TenantRequest{Name: v.name, Title: v.title}, nil); err != nil {
			return err
		}
		env, err := d.token(ctx, postern.TokenRequest{Tenant: v.name})
		if err != nil {
			return err
		}
		if err := d.writeFile(ctx, v); err != nil {
			return err
		}
		err = d.cast.start(v.name+"-node", env, d.cast.self, "node", "join", "--data", d.data(v.name+"-node"),
			"--name", "office", "--config", v.file)
		if err != nil {
			return err
		}
		v.url = "https://" + net.JoinHostPort(v.name+"."+demoBase, strconv.Itoa(d.https)) + "/"
	}
	return nil
}

// portal returns the URL of the portal, without a slash at its end.
func (d *demo) portal() string {
	return "https://" + net.JoinHostPort("portal."+demoBase, strconv.Itoa(d.https))
}

// writeFile writes the file that says what v's node publishes: the books, with the
// companies in them as entries of the catalogue.
func (d *demo) writeFile(ctx context.Context, v *company) error {
	answer, _, err := get(ctx, http.DefaultClient, v.ledger+"/api/companies")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# What the node of %s publishes. Change it: the node and the portal follow.
services:
  - title: Books
    description: Companies, vouchers and the trial balance.
    icon: book
    upstream: %s
    access: members
    entries:
`, v.title, v.ledger)
	for _, c := range companiesIn(answer) {
		fmt.Fprintf(&b, "      - {name: company-%d, title: %q, path: /companies/%d}\n", c.ID, c.Name, c.ID)
	}
	if v.documents {
		folder := d.data(v.name + "-documents")
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "index.html"), fmt.Appendf(nil, demoDocument, v.title), 0o600); err != nil {
			return err
		}
		fmt.Fprintf(&b, `
  - name: %s
    title: Documents
    description: What the auditor asked for.
    icon: folder
    upstream: %s
    access: groups
    groups: [%s]
`, demoDocuments, folder, demoAuditors)
	}
	v.file = d.data(v.name + ".yaml")
	return os.WriteFile(v.file, []byte(b.String()), 0o600)
}

// demoDocument is the one page for the auditor.
const demoDocument = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Documents for the audit</title>
<h1>%s: documents for the audit</h1>
<p>A folder of files on the company's own machine, for the group auditors alone.</p>
`

// await repeats try until it succeeds, or what fails, for demoPatience.
func (d *demo) await(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoPatience, context.DeadlineExceeded)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return context.Cause(ctx)
			}
			return fail("`--verbose` shows what each process says", fmt.Errorf("waited %v for %s: %w", demoPatience, what, err))
		}
	}
}
