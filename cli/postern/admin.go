package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/internal/identity"
)

// An admin speaks the admin API (see postern.PathAdmin): over the unix socket in
// the coordinator's data directory, or from afar under an admin token.
type admin struct {
	hc     *http.Client
	bases  []string // tried in turn until one is reached
	bearer string   // empty on the socket
	where  string   // for errors
}

// adminTimeout bounds one call.
const adminTimeout = 30 * time.Second

// adminTokenEnv holds an admin token, or the path of a file with one.
const adminTokenEnv = "POSTERN_ADMIN_TOKEN"

// adminFlags are the options of every command that talks to the coordinator.
func adminFlags(more ...cli.Flag) []cli.Flag {
	return append(more,
		dataFlag("the coordinator's data `DIR`ectory, on its own machine"),
		&cli.StringFlag{Name: "admin-token-file", Usage: "`FILE`: holds an admin token, to operate from afar; - for standard input"},
		&cli.StringFlag{Name: "coordinator", Usage: "`URL` of the coordinator in place of the admin token's"},
	)
}

// listFlags are the options of every list.
func listFlags(more ...cli.Flag) []cli.Flag {
	return adminFlags(append(append(more, outputFlags()...), watchFlag())...)
}

// operate returns the action of a command that talks to the coordinator and
// takes the operands names.
func operate(do func(c *cli.Context, a *admin, words []string) error, names ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		words, err := operands(c, names...)
		if err != nil {
			return err
		}
		if _, err := outputFormat(c); err != nil {
			return err
		}
		a, err := openAdmin(c)
		if err != nil {
			return err
		}
		defer a.hc.CloseIdleConnections()
		return do(c, a, words)
	}
}

// openAdmin returns the way to the coordinator that c's options ask for.
func openAdmin(c *cli.Context) (*admin, error) {
	text, err := adminToken(c)
	if err != nil {
		return nil, err
	}
	if text == "" {
		if c.IsSet("coordinator") {
			return nil, misuse("give --admin-token-file FILE or set "+adminTokenEnv, "--coordinator needs an admin token")
		}
		return socketAdmin(adminSocket(c.String("data"))), nil
	}
	token, err := postern.ParseToken(text)
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	if token.Kind != postern.AdminToken {
		return nil, fail("make one on the coordinator's machine: postern tokens create --admin",
			fmt.Errorf("admin token: %w: it is a %s token, and operating takes a %s token", postern.ErrToken, token.Kind, postern.AdminToken))
	}
	if u := c.String("coordinator"); u != "" {
		if err := postern.CheckControlURL(u); err != nil {
			return nil, misuse("such as https://control.apps.example.com", "%w", err)
		}
		token.URLs = []string{strings.TrimSuffix(u, "/")}
	}
	return remoteAdmin(token), nil
}

// adminToken returns the text of the token to use, empty for none.
func adminToken(c *cli.Context) (string, error) {
	if file := c.String("admin-token-file"); file != "" {
		return readSecret(c, "token", file)
	}
	env := os.Getenv(adminTokenEnv)
	if env == "" || strings.HasPrefix(env, string(postern.AdminToken)+"_") {
		return env, nil
	}
	if _, err := os.Stat(env); err != nil {
		return env, nil // a token that is no good; ParseToken says how
	}
	return readSecret(c, "token", env)
}

// adminSocket returns the path of the socket in dir, or, if dir is where `up`
// keeps its roles, in the coordinator's part of it.
func adminSocket(dir string) string {
	return rolePath(dir, postern.RoleCoordinator, postern.AdminSocket)
}

// rolePath returns the path of role's file called name in dir, or, if dir is where `up`
// keeps its roles, in role's part of it.
func rolePath(dir string, role postern.Role, name string) string {
	if dir == "" {
		dir = defaultData(role)
	}
	path := filepath.Join(dir, name)
	below := filepath.Join(dir, string(role), name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(below); err == nil {
			return below
		}
	}
	return path
}

func socketAdmin(path string) *admin {
	return &admin{
		hc:    &http.Client{Transport: &http.Transport{DialContext: dialSocket(path)}},
		bases: []string{"http://coordinator"},
		where: path,
	}
}

func remoteAdmin(token postern.Token) *admin {
	return &admin{
		hc: &http.Client{Transport: &http.Transport{
			DialContext:         dialLocalhost,
			TLSClientConfig:     identity.ClientConfig(token.Root, nil),
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: 10 * time.Second,
		}},
		bases:  token.URLs,
		bearer: token.Secret(),
		where:  strings.Join(token.URLs, ", "),
	}
}

// dialLocalhost connects to addr. Names under .localhost are loopback (RFC 6761,
// section 6.3), whatever the system's resolver thinks.
func dialLocalhost(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if host, port, err := net.SplitHostPort(addr); err == nil && postern.IsLocalhost(host) {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	return d.DialContext(ctx, network, addr)
}

// call sends in, if not nil, to path below the API's root and decodes the
// answer into out, if not nil. A refusal is a *postern.Problem.
func (a *admin) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	resp, err := a.send(ctx, method, postern.PathAdmin+path, body)
	if err != nil {
		return a.explain(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		p := new(postern.Problem)
		if json.Unmarshal(data, p) != nil || p.Detail == "" {
			return fmt.Errorf("%s %s: %s", method, path, resp.Status)
		}
		return p
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s %s: decode the answer: %w", method, path, err)
	}
	return nil
}

// send makes the request of the first base that can be reached. A request whose
// connection was never made was not acted upon, so the next may have it.
func (a *admin) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	var failed []error
	for _, base := range a.bases {
		req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		if a.bearer != "" {
			req.Header.Set("Authorization", "Bearer "+a.bearer)
		}
		resp, err := a.hc.Do(req)
		if err == nil {
			return resp, nil
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" {
			return nil, err
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// dialSocket returns a dialer that knows one address, the unix socket at path.
func dialSocket(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// explain says what it means that the coordinator was not reached.
func (a *admin) explain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the URL, which nobody typed
	}
	if a.bearer != "" {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fail("run it as root, or as the user that the coordinator runs as", fmt.Errorf("admin socket %s: permission denied", a.where))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return fail("start it with `postern up` or `postern coordinator run`, or name its data directory with --data",
			fmt.Errorf("no coordinator answers at %s", a.where))
	case errors.Is(err, syscall.EINVAL):
		return fail("use a shorter --data directory", fmt.Errorf("admin socket %s: its path is too long", a.where))
	}
	return err
}

// fetch returns a func that gets a list from path.
func fetch[T any](a *admin, path string) func(context.Context) ([]T, error) {
	return func(ctx context.Context) ([]T, error) {
		var rows []T
		return rows, a.call(ctx, http.MethodGet, path, nil, &rows)
	}
}

// query appends tenant to path, if it is given.
func query(path, tenant string) string {
	if tenant == "" {
		return path
	}
	return path + "?" + url.Values{"tenant": {tenant}}.Encode()
}
