package member

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"postern"
	"postern/internal/connect"
	"postern/internal/datadir"
	"postern/internal/identity"
)

// ErrJoined says that a data directory has a membership already.
var ErrJoined = errors.New("already joined")

// ErrUnreachable is wrapped by errors that say no coordinator answered.
var ErrUnreachable = errors.New("the coordinator does not answer")

// joinTimeout bounds one attempt at one URL of the coordinator.
const joinTimeout = 20 * time.Second

// Join enrols this machine as a member with role under token and keeps the
// membership in dir. Name is a wish; if empty, the coordinator makes one from
// host. It may be repeated after any failure: the coordinator knows the same
// keys again, so a lost answer does not use up a token.
//
// The coordinator is reached by proxy, the environment's if that is nil. What it refuses
// comes back as a *postern.Problem.
func Join(ctx context.Context, dir *datadir.Dir, proxy connect.Proxy, token postern.Token, role postern.Role, name string, host postern.Host) (*Identity, error) {
	if token.Kind != postern.JoinToken {
		return nil, fmt.Errorf("%w: it is a %s token, and joining takes a %s token", postern.ErrToken, token.Kind, postern.JoinToken)
	}
	id, err := loadIdentity(dir)
	switch {
	case errors.Is(err, ErrNotJoined):
		id = &Identity{Role: role, Key: postern.NewIdentityPrivate(), WireGuard: postern.NewWireGuardPrivate(), WireGuardSince: time.Now().UTC().Round(0)}
	case err != nil:
		return nil, err
	case id.Enrollment.ID != "":
		return id, fmt.Errorf("%w as %q", ErrJoined, id.Enrollment.Name)
	}
	id.Root, id.URLs = token.Root, token.URLs
	if err := id.save(dir); err != nil {
		return nil, fmt.Errorf("keep the member's keys: %w", err)
	}
	req := postern.EnrollRequest{
		Token: token.ID, Role: role, Name: name,
		Identity: id.Key.Public(), WireGuard: id.WireGuard.Public(), Host: host,
	}
	if id.Enrollment, err = enrollAny(ctx, proxy, id, token, req); err != nil {
		return nil, err
	}
	if err := id.save(dir); err != nil {
		return nil, fmt.Errorf("keep the membership: %w", err)
	}
	return id, nil
}

// enrollAny tries the coordinator's URLs in turn until one of them answers.
func enrollAny(ctx context.Context, proxy connect.Proxy, id *Identity, token postern.Token, req postern.EnrollRequest) (postern.Enrollment, error) {
	var failed []error
	for _, u := range token.URLs {
		e, err := enroll(ctx, proxy, u, id, token, req)
		if err == nil {
			return e, checkEnrollment(e, req)
		}
		var refused *postern.Problem
		if errors.As(err, &refused) || errors.Is(err, identity.ErrWrongRoot) || ctx.Err() != nil {
			return postern.Enrollment{}, err
		}
		failed = append(failed, err)
	}
	return postern.Enrollment{}, fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(failed...))
}

func checkEnrollment(e postern.Enrollment, req postern.EnrollRequest) error {
	switch {
	case e.ID == "" || e.Deployment == "" || !e.Address.Is6() || len(e.Certificate) == 0:
		return errors.New("the coordinator's answer to the enrolment lacks an id, an address or a certificate")
	case (e.Tenant == "") != (req.Role == postern.RoleGateway):
		return fmt.Errorf("the coordinator enrolled a %s with tenant %q", req.Role, e.Tenant)
	}
	return nil
}

// enroll does both requests of an enrolment on one TLS connection: the proofs
// are bound to it (RFC 9266), so nobody in between can pass them on.
func enroll(ctx context.Context, proxy connect.Proxy, base string, id *Identity, token postern.Token, req postern.EnrollRequest) (postern.Enrollment, error) {
	var e postern.Enrollment
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := dialTLS(ctx, proxy, base, identity.ClientConfig(token.Root, nil, "http/1.1"))
	if err != nil {
		return e, err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return e, fmt.Errorf("channel binding: %w", err)
	}
	hc := oneConn(conn)
	defer hc.CloseIdleConnections()

	var challenge postern.Challenge
	if err := call(ctx, hc, http.MethodGet, base+postern.PathEnroll, nil, nil, &challenge); err != nil {
		return e, err
	}
	body, err := json.Marshal(req)
	if err != nil {
		return e, err
	}
	proofs, err := prove(id, token, challenge, postern.EnrollMessage(binding, body))
	if err != nil {
		return e, err
	}
	err = call(ctx, hc, http.MethodPost, base+postern.PathEnroll, proofs, json.RawMessage(body), &e)
	return e, err
}

// prove returns the headers that show possession of the token, of the identity
// and of the WireGuard key.
func prove(id *Identity, token postern.Token, challenge postern.Challenge, message []byte) (http.Header, error) {
	mac, err := proveKey(id.WireGuard, challenge, message)
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	set := func(name string, proof []byte) { h.Set(name, base64.StdEncoding.EncodeToString(proof)) }
	set(postern.HeaderTokenSignature, ed25519.Sign(token.Key(), message))
	set(postern.HeaderIdentitySignature, ed25519.Sign(id.Key.Key(), message))
	set(postern.HeaderWireGuardProof, mac)
	return h, nil
}

// dialTLS opens a TLS connection to the coordinator at base, an https URL.
func dialTLS(ctx context.Context, proxy connect.Proxy, base string, cfg *tls.Config) (*tls.Conn, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	raw, err := proxy.Dial(ctx, net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	cfg.ServerName = u.Hostname()
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", base, err)
	}
	return conn, nil
}

// oneConn returns a client that speaks HTTP/1.1 over conn and nothing else.
func oneConn(conn net.Conn) *http.Client {
	used := false
	return &http.Client{Transport: &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, errors.New("the connection that the proofs are bound to has gone")
			}
			used = true
			return conn, nil
		},
	}}
}

// maxAnswer bounds what a coordinator may answer to a single call, in bytes.
const maxAnswer = 4 << 20

// call sends in, if not nil, as JSON and decodes the answer into out, if not
// nil. A refusal is a *postern.Problem.
func call(ctx context.Context, hc *http.Client, method, url string, header http.Header, in, out any) error {
	resp, err := send(ctx, hc, method, url, header, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return err
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("%s %s: decode the answer: %w", method, url, err)
	}
	return nil
}

// send is call up to the answer's header. The caller closes the body.
func send(ctx context.Context, hc *http.Client, method, url string, header http.Header, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, readProblem(resp)
	}
	return resp, nil
}

// readProblem makes a Problem of any refusal, also of one that some proxy in
// between made up.
func readProblem(resp *http.Response) error {
	p := new(postern.Problem)
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil || json.Unmarshal(data, p) != nil || p.Status == 0 {
		return fmt.Errorf("%s %s: %s", resp.Request.Method, resp.Request.URL, resp.Status)
	}
	return p
}
