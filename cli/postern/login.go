package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/coordinator/portal"
	"postern/internal/datadir"
)

func loginCommand() *cli.Command {
	return &cli.Command{
		Name: "login", Usage: "print an access token for a service, for programs that speak to it in your name", Action: login,
		ArgsUsage: "HOST",
		Description: "The first time it prints an address and a code on standard error: open the address in any browser, sign in, and " +
			"allow it. The token goes to standard output. It is good for 10 minutes; later calls print another without asking, for " +
			"30 days or until you end the session at your account.",
		UsageText: "postern login acme.apps.example.com\n" +
			"curl -H \"Authorization: Bearer $(postern login acme.apps.example.com)\" \\\n" +
			"    https://acme.apps.example.com/api/",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "portal", Usage: "`URL` where you sign in (if not given, where HOST sends browsers for that)"},
			&cli.StringFlag{Name: "ca", Usage: "`FILE` with the private CA that the certificates of HOST and the portal are from, PEM"},
			&cli.BoolFlag{Name: "forget", Usage: "end the session and print nothing"},
			// Not POSTERN_DATA: that is where one of the parts has its state.
			&cli.StringFlag{Name: "data", Usage: "`DIR`ectory in which sessions are kept, for this user alone (" + defaultLogins() + " if not given)"},
		},
	}
}

// A loginSession is a login that was allowed, as it is kept on disk. Whoever has it
// can speak to one host as its owner.
type loginSession struct {
	Portal  string `json:"portal"`
	Refresh string `json:"refresh_token"`
}

const (
	loginFile = "session.json"
	roleLogin = "login" // of the directory that it is in
)

// defaultLogins is where sessions are if --data does not say.
func defaultLogins() string { return filepath.Join(defaultData(""), "logins") }

func login(c *cli.Context) error {
	words, err := operands(c, "HOST")
	if err != nil {
		return err
	}
	l := &loginFlow{ask: c.App.ErrWriter}
	if l.host, l.port, err = parseLoginHost(words[0]); err != nil {
		return err
	}
	if asked := strings.TrimSuffix(c.String("portal"), "/"); asked != "" {
		u, err := url.Parse(asked)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" {
			return misuse("such as --portal https://portal.apps.example.com", "--portal %q is no https URL without a path", asked)
		}
		l.portal = originOf(u)
	}
	if l.hc, err = portalClient(c.String("ca")); err != nil {
		return err
	}
	defer l.hc.CloseIdleConnections()
	path := filepath.Join(cmp.Or(c.String("data"), defaultLogins()), l.host+"_"+l.port)
	if !datadir.Is(path, roleLogin) { // none is made for a host where nobody signs in
		if c.Bool("forget") {
			return nil
		}
		if l.portal == "" {
			if l.portal, err = l.findPortal(c.Context); err != nil {
				return err
			}
		}
	}
	// Two at a time would use one refresh token twice, which ends the session.
	waiting := func() { fmt.Fprintf(l.ask, "Waiting for another postern login for %s to end.\n", l.host) }
	if l.dir, err = openWhenFree(c.Context, path, roleLogin, waiting); err != nil {
		return err
	}
	defer l.dir.Close()
	var held loginSession
	if err := l.dir.ReadJSON(loginFile, &held); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.Bool("forget") {
		return l.forget(c.Context, held)
	}
	if l.portal = cmp.Or(l.portal, held.Portal); l.portal == "" {
		if l.portal, err = l.findPortal(c.Context); err != nil {
			return err
		}
	}
	token, err := l.token(c.Context, held)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, token)
	return err
}

// openWhenFree opens a data directory once no other process has it. It calls waiting
// first if that is not at once.
func openWhenFree(ctx context.Context, path string, role postern.Role, waiting func()) (*datadir.Dir, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for first := true; ; first = false {
		dir, err := datadir.Open(path, role)
		if !errors.Is(err, datadir.ErrInUse) {
			return dir, err
		}
		if first {
			waiting()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func httpsOrigin(host, port string) string {
	if port == "443" {
		return "https://" + host
	}
	return "https://" + net.JoinHostPort(host, port)
}

// originOf returns the origin of an https URL.
func originOf(u *url.URL) string {
	return httpsOrigin(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), "443"))
}

// parseLoginHost reads HOST[:PORT], also as a URL.
func parseLoginHost(s string) (host, port string, err error) {
	name, port := strings.TrimSuffix(strings.TrimPrefix(s, "https://"), "/"), "443"
	if h, p, err := net.SplitHostPort(name); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", "", misuse("ports are 1 to 65535", "%q has no port that is one", s)
		}
		name, port = h, strconv.FormatUint(n, 10)
	}
	if host, err = postern.ParseHost(name); err != nil {
		return "", "", misuse("want a service's host name, such as acme.apps.example.com", "%w", err)
	}
	return host, port, nil
}

// portalClient returns a client that trusts the CA in file, if one is named, else
// the machine's.
func portalClient(file string) (*http.Client, error) {
	cfg := &tls.Config{}
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fail("name a file with the CA's certificate, PEM", fmt.Errorf("--ca: %w", err))
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fail("name a file with the CA's certificate, PEM", fmt.Errorf("--ca %s: there is no certificate in it", file))
		}
	}
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg, ForceAttemptHTTP2: true, DialContext: dialLocalhost},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// A loginFlow gets access tokens for one host.
type loginFlow struct {
	host, port string
	portal     string       // origin
	dir        *datadir.Dir // with the session
	hc         *http.Client
	ask        io.Writer // where the user is told what to do
}

// findPortal returns where the host's node sends browsers to sign in. A name that is
// guessed could be anybody's.
func (l *loginFlow) findPortal(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, httpsOrigin(l.host, l.port)+"/.well-known/postern/tokens", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("User-Agent", "postern/"+programVersion())
	resp, err := l.hc.Do(req)
	if err != nil {
		return "", fail("check the host's name, and --ca if its certificate is of a private CA; --portal says where to sign in",
			fmt.Errorf("%s does not say where people sign in: %w", l.host, err))
	}
	resp.Body.Close()
	u, err := resp.Location()
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "/authorize" || u.Query().Get("client_id") != l.host {
		return "", fail("say it with --portal", fmt.Errorf("%s does not say where people sign in", l.host))
	}
	return originOf(u), nil
}

// keep stores what the next token takes, before this one is used: a refresh token
// is good once.
func (l *loginFlow) keep(t tokenAnswer) (string, error) {
	return t.Access, l.dir.WriteJSON(loginFile, loginSession{Portal: l.portal, Refresh: t.Refresh})
}

// token returns an access token, by the session that is held if it goes on, else by
// asking the user.
func (l *loginFlow) token(ctx context.Context, held loginSession) (string, error) {
	if held.Refresh != "" && held.Portal == l.portal {
		t, err := l.post(ctx, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {held.Refresh}})
		var refused *oauthError
		switch {
		case err == nil:
			return l.keep(t)
		case !errors.As(err, &refused) || refused.Code != "invalid_grant":
			return "", l.explain(err)
		}
	}
	return l.device(ctx)
}

// device asks the user, and waits for the answer (RFC 8628).
func (l *loginFlow) device(ctx context.Context) (string, error) {
	begun, err := l.post(ctx, "/oauth/device", url.Values{"resource": {httpsOrigin(l.host, l.port)}})
	if err != nil {
		return "", l.explain(err)
	}
	if u, err := url.Parse(begun.VerificationComplete); err != nil || u.Scheme != "https" || originOf(u) != l.portal {
		return "", fail("do not open it; check --portal", fmt.Errorf("portal %s: it names %q to sign in at, which is not its own", l.portal, begun.VerificationComplete))
	}
	fmt.Fprintf(l.ask, "To let this program speak to %s in your name, open\n\n  %s\n\nand check that it shows the code  %s\n\n", l.host, begun.VerificationComplete, begun.UserCode)
	wait := time.Duration(max(begun.Interval, 1)) * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(begun.Expires)*time.Second,
		fail("run it again", errors.New("nobody allowed it in time")))
	defer cancel()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
		t, err := l.post(ctx, "/oauth/token", url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {begun.DeviceCode},
		})
		var refused *oauthError
		switch {
		case err == nil:
			return l.keep(t)
		case !errors.As(err, &refused) && ctx.Err() == nil:
			// The portal may be away for a moment, and the user not done yet.
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case refused.Code == "slow_down":
			wait += 5 * time.Second
		case refused.Code != "authorization_pending" && !refused.passes():
			return "", l.explain(err)
		}
		timer.Reset(wait)
	}
}

// forget ends the session that is held.
func (l *loginFlow) forget(ctx context.Context, held loginSession) error {
	if held.Refresh != "" {
		l.portal = held.Portal
		if _, err := l.post(ctx, "/revoke", url.Values{"token": {held.Refresh}}); err != nil {
			return l.explain(err)
		}
	}
	return l.dir.Remove(loginFile)
}

// A tokenAnswer is what the portal answers programs.
type tokenAnswer struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`

	DeviceCode           string `json:"device_code"`
	UserCode             string `json:"user_code"`
	VerificationComplete string `json:"verification_uri_complete"`
	Expires              int    `json:"expires_in"`
	Interval             int    `json:"interval"`
}

// An oauthError is a refusal (RFC 6749, section 5.2).
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *oauthError) Error() string {
	if e.Description == "" {
		return e.Code
	}
	return e.Description
}

// passes reports whether it is the portal's own trouble, and not for long.
func (e *oauthError) passes() bool {
	return e.Code == "server_error" || e.Code == "temporarily_unavailable"
}

// maxTokenAnswer bounds what the portal answers, in bytes.
const maxTokenAnswer = 64 << 10

func (l *loginFlow) post(ctx context.Context, path string, form url.Values) (tokenAnswer, error) {
	var out tokenAnswer
	form.Set("client_id", portal.ProgramClient)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.portal+path, strings.NewReader(form.Encode()))
	if err != nil {
		return out, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "postern/"+programVersion())
	resp, err := l.hc.Do(req)
	if err != nil {
		return out, fail("check --portal, and --ca if the portal has a private CA's certificate", fmt.Errorf("portal: %w", err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return out, fmt.Errorf("portal %s: %w", l.portal, err)
	}
	if resp.StatusCode == http.StatusOK {
		if len(body) > 0 {
			err = json.Unmarshal(body, &out)
		}
		return out, err
	}
	refused := new(oauthError)
	if json.Unmarshal(body, refused) != nil || refused.Code == "" {
		return out, fail("check --portal", fmt.Errorf("portal %s answers with status %d", l.portal, resp.StatusCode))
	}
	return out, refused
}

// explain says what to do about a refusal.
func (l *loginFlow) explain(err error) error {
	var refused *oauthError
	if !errors.As(err, &refused) {
		return err
	}
	hint := "run it again, and allow it in the browser"
	switch {
	case refused.Code == "invalid_target":
		hint = "check the host's name, and --portal"
	case refused.passes():
		hint = "wait a few minutes"
	}
	return fail(hint, fmt.Errorf("portal %s: %w", l.portal, refused))
}
