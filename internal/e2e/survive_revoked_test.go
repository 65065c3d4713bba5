//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern"
	"postern/internal/member"
	carrier "postern/internal/relay"
)

// tickling answers for ever, some kilobytes each 10 ms: a download, and at /socket a
// WebSocket.
func tickling(w http.ResponseWriter, r *http.Request) {
	send := func(b []byte) error {
		_, err := w.Write(b)
		return errors.Join(err, http.NewResponseController(w).Flush())
	}
	ctx := r.Context()
	if r.URL.Path == "/socket" {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx = c.CloseRead(ctx)
		send = func(b []byte) error { return c.Write(ctx, websocket.MessageBinary, b) }
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for bytes := make([]byte, 4<<10); send(bytes) == nil; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// serveAt serves on a unix socket, which namespaces have in common.
func serveAt(t *testing.T, path string, h http.HandlerFunc) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
}

// tenantNode joins a node at home to a tenant of its own name, behind which that answers,
// and runs it until both gateways reach it.
func (p *pair) tenantNode(name, upstream string) *process {
	p.t.Helper()
	p.in(p.home, append([]string{program("postern"), "node", "join", "--no-run", "--data", p.d.data(name), "--name", name,
		"--token-file", p.d.secretFile(p.d.tenant(name))}, publicly(upstream)...)...)
	n := p.start(p.home, name, "node", "run")
	p.d.ready(name)
	for addr := range p.gateways {
		eventually(p.t, 20*time.Second, func() error { return p.reach(addr, name) })
	}
	return n
}

// reach returns why a tenant's name does not answer by a gateway.
func (p *pair) reach(gateway, tenant string) error {
	resp, err := p.from(gateway, 10*time.Second).Get("https://" + tenant + "." + natDomain + "/")
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}

// follow reads r until it fails, and then says when the last byte came. It returns once
// the first has come.
func follow(t *testing.T, r io.Reader) <-chan time.Time {
	t.Helper()
	buf := make([]byte, 64<<10)
	if _, err := r.Read(buf); err != nil {
		t.Fatal(err)
	}
	ended := make(chan time.Time, 1)
	go func() {
		for last := time.Now(); ; {
			n, err := r.Read(buf)
			if n > 0 {
				last = time.Now()
			}
			if err != nil {
				ended <- last
				return
			}
		}
	}()
	return ended
}

// busy opens a download and a WebSocket by each gateway.
func (p *pair) busy(ctx context.Context, tenant string) (flows []<-chan time.Time) {
	p.t.Helper()
	for addr := range p.gateways {
		hc := p.from(addr, 0)
		resp, err := hc.Get("https://" + tenant + "." + natDomain + "/")
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { resp.Body.Close() })
		c, _, err := websocket.Dial(ctx, "wss://"+tenant+"."+natDomain+"/socket", &websocket.DialOptions{HTTPClient: hc})
		if err != nil {
			p.t.Fatal(err)
		}
		flows = append(flows, follow(p.t, resp.Body), follow(p.t, websocket.NetConn(ctx, c, websocket.MessageBinary)))
	}
	return flows
}

// lasted waits until all flows have ended, and returns how long after begin the last byte
// of each came.
func lasted(t *testing.T, flows []<-chan time.Time, begin time.Time) (took []time.Duration) {
	t.Helper()
	patience := time.After(revocationTime + survivePatience)
	for _, f := range flows {
		select {
		case last := <-f:
			took = append(took, max(0, last.Sub(begin)))
		case <-patience:
			t.Fatal("a connection of what was revoked is still open")
		}
	}
	return took
}

// hello returns what a gateway says to a hello for a tenant's name.
func (l *lab) hello(gateway, tenant string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	raw, err := dialIn(l.world)(ctx, "tcp", net.JoinHostPort(gateway, "443"))
	if err != nil {
		return err
	}
	defer raw.Close()
	return tls.Client(raw, &tls.Config{ServerName: tenant + "." + natDomain, RootCAs: l.d.roots()}).HandshakeContext(ctx)
}

// A node, and a tenant, are removed while downloads and WebSockets go on, over UDP and by
// the relay, through two gateways. Not a byte comes after two seconds, and nothing of
// theirs is left: no way in, no tunnel, no stream, no relay.
func TestSurviveRevoked(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	app := filepath.Join(p.d.dir, "app.sock")
	serveAt(t, app, tickling)
	for _, kind := range []struct {
		name, path string
		revoke     []string
	}{
		{"node", postern.CarrierUDP, []string{"nodes", "remove", "node/node"}},
		{"tenant", postern.CarrierRelay, []string{"tenants", "remove", "tenant", "--yes"}},
	} {
		proc := p.tenantNode(kind.name, "unix:"+app)
		if kind.path == postern.CarrierRelay {
			p.blockUDP()
			eventually(t, 2*(promisedOut+survivePatience), func() error {
				for _, u := range p.d.nodeStatus(kind.name).Tunnels {
					if u.Path != kind.path {
						return fmt.Errorf("the tunnel to %s goes by %s", u.Gateway, u.Path)
					}
				}
				return nil
			})
		}
		var id member.Identity
		var held postern.Map
		readJSON(t, filepath.Join(p.d.data(kind.name), "identity.json"), &id)
		readJSON(t, filepath.Join(p.d.data(kind.name), "map.json"), &held)
		flows := p.busy(t.Context(), kind.name)
		if _, err := p.d.try(kind.revoke...); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		took := lasted(t, flows, begin)
		recovered(t, "revocation", "a "+kind.name+" is removed, reached by "+kind.path+": last byte", revocationTime, survivePatience, took...)

		select {
		case <-proc.done:
		case <-time.After(survivePatience):
			t.Errorf("the node of a %s that was removed still runs", kind.name)
		}
		for _, again := range []string{"at once", "from what it has on disk"} {
			if proc.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(proc.out.String(), "no longer a member") {
				t.Errorf("%s it ended with %d: %s", again, proc.cmd.ProcessState.ExitCode(), proc.out.tail(300))
			}
			proc = p.start(p.home, kind.name, "node", "run")
			<-proc.done
		}
		for addr, name := range map[string]string{natGateway: "gateway", secondGateway: "second"} {
			if err := p.hello(addr, kind.name); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("a new connection by %s: %v", name, err)
			}
			if text := must(t, program("postern"), "gateway", "status", "--data", p.d.data(name), "--json"); strings.Contains(text, id.Enrollment.ID) {
				t.Errorf("%s still has a tunnel to it: %s", name, text)
			}
		}
		for _, g := range held.Deployment().Gateways {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			dial := dialIn(p.home)
			c, err := carrier.Node{ID: id.Enrollment.ID, Key: id.Key.Key()}.Dial(ctx, g, func(ctx context.Context, addr string) (net.Conn, error) {
				return dial(ctx, "tcp", addr)
			})
			if err == nil {
				c.Close()
				t.Errorf("gateway %s opens a relay for it", g.Name)
			}
			cancel()
		}
	}
	if err := p.visit(secondGateway, 20*time.Second); err != nil {
		t.Errorf("the others: %v", err)
	}
}

func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err := errors.Join(err, json.Unmarshal(data, v)); err != nil {
		t.Fatal(err)
	}
}

// What somebody may open is taken from them, or they from everybody, while bytes come.
func TestSurviveRevokedUser(t *testing.T) {
	t.Parallel()
	e, _, _ := newSignIns(t)
	go e.apps["acme"].keepTelling(t.Context())
	for _, kind := range []struct {
		name, what string
		revoke     []string
	}{
		{"granted", "a grant is taken back", []string{"users", "revoke", "user-granted", "acme"}},
		{"disabled", "a user is disabled", []string{"users", "disable", "user-disabled"}},
		{"removed", "a user is removed", []string{"users", "remove", "user-removed", "--yes"}},
	} {
		v := e.member(t, "user-"+kind.name, "acme", postern.GrantRequest{})
		v.enters(e.url("acme", "/"))
		flows := []<-chan time.Time{v.stream(e.url("acme", "/events?n=1000000"))}
		e.do(kind.revoke...)
		recovered(t, "revocation", kind.what+": last byte", revocationTime, survivePatience, lasted(t, flows, time.Now())...)
		if a := v.ask("GET", e.url("acme", "/"), nil, nil); a.status == http.StatusOK {
			t.Errorf("%s: the session is still good", kind.name)
		}
	}
}
