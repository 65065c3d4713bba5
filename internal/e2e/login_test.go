//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"

	"postern"
)

// An estate is a deployment where people sign in, with two tenants, acme and globex,
// each with a node called TENANT-office that follows the file TENANT.yaml.
type estate struct {
	*deployment
	apps   map[string]*application // by tenant
	office map[string]*process
}

// newEstate starts an estate. Its nodes publish what files say, by tenant, in which
// %s is the tenant's application. env is for the coordinator and the nodes.
func newEstate(t testing.TB, env []string, files map[string]string) *estate {
	t.Helper()
	e := &estate{
		deployment: bareDeployment(t),
		apps:       map[string]*application{}, office: map[string]*process{},
	}
	e.env = env
	e.startCoordinator()
	e.joinGateway()
	e.startGateway()
	for tenant, title := range map[string]string{"acme": "Acme Joinery", "globex": "Globex Trading"} {
		e.cli(nil, "tenants", "add", tenant, "--title", title, "--no-token")
		e.apps[tenant] = newApplication(t, tenant)
		e.says(tenant, fmt.Sprintf(files[tenant], e.apps[tenant].url))
		must(t, program("postern"), "node", "join", "--no-run", "--data", e.data(tenant+"-office"), "--name", tenant+"-office",
			"--token-file", e.secretFile(e.token(tenant)), "--config", e.file(tenant))
		e.startOffice(tenant)
	}
	for tenant := range files {
		e.ready(tenant + "-office")
	}
	return e
}

// membersOnly is a file of a node that publishes one application for members.
const membersOnly = "services:\n  - title: Books\n    upstream: %s\n    access: members\n"

func (e *estate) file(tenant string) string { return filepath.Join(e.dir, tenant+".yaml") }

// says changes the file of a tenant's node.
func (e *estate) says(tenant, text string) {
	e.t.Helper()
	writeFile(e.t, e.file(tenant), text)
}

// startOffice starts a tenant's node, which has joined.
func (e *estate) startOffice(tenant string) {
	e.t.Helper()
	name := tenant + "-office"
	e.office[tenant] = start(e.t, name, e.env, program("postern"), "node", "run", "--data", e.data(name), "--config", e.file(tenant), "--log-level", "debug")
}

// portal returns the URL of a page of the portal.
func (d *deployment) portal(path string) string { return d.url("portal", path) }

// admin makes a request of the admin API over the coordinator's socket, and decodes
// the answer into out, if not nil. A refusal is a *postern.Problem.
func (d *deployment) admin(method, path string, in, out any) error {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return err
		}
	}
	socket := filepath.Join(d.data("coordinator"), postern.AdminSocket)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(method, "http://coordinator"+postern.PathAdmin+path, &body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := (&http.Client{Transport: transport, Timeout: pageTime}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode/100 != 2:
		p := new(postern.Problem)
		if json.Unmarshal(data, p) != nil || p.Detail == "" {
			return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, data)
		}
		return p
	case out == nil:
		return nil
	}
	return json.Unmarshal(data, out)
}

// mustAdmin is admin for what has to work.
func (d *deployment) mustAdmin(method, path string, in, out any) {
	d.t.Helper()
	if err := d.admin(method, path, in, out); err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// invite makes a user and returns the link of their invitation.
func (d *deployment) invite(login, name string) string {
	d.t.Helper()
	d.mustAdmin("POST", "/users", postern.UserRequest{Login: login, Name: name}, nil)
	var invite postern.Invite
	d.mustAdmin("POST", "/users/"+url.PathEscape(login)+"/invite", nil, &invite)
	return invite.URL
}

// grant lets a user open a tenant.
func (d *deployment) grant(login, tenant string, grant postern.GrantRequest) {
	d.t.Helper()
	d.mustAdmin("PUT", "/users/"+url.PathEscape(login)+"/grants/"+tenant, grant, nil)
}

// audited returns the entries of the audit log whose action begins so.
func (d *deployment) audited(action string) []postern.AuditEntry {
	d.t.Helper()
	var entries, found []postern.AuditEntry
	for after := uint64(0); ; {
		d.mustAdmin("GET", fmt.Sprintf("/audit?after=%d&limit=1000", after), nil, &entries)
		if len(entries) == 0 {
			return found
		}
		for _, e := range entries {
			after = e.Seq
			if len(e.Action) >= len(action) && e.Action[:len(action)] == action {
				found = append(found, e)
			}
		}
	}
}
