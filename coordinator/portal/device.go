package portal

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"postern"
	"postern/coordinator"
)

// ProgramClient is the id of the one client that is a program of a user's (RFC 8628).
const ProgramClient = "postern-cli"

var deviceGrants = []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}

// Bounds of the device flow.
const (
	deviceLife     = 10 * time.Minute // for the user to come by
	deviceInterval = 5 * time.Second  // between two questions of a program
	maxDevices     = 1024             // that wait
	sourceDevices  = 16               // of them, from one source, see coordinator.SourceOf
	maxAgent       = 200              // bytes of what a program says that it is
)

// Answers of a user.
type deviceAnswer int

const (
	deviceWaits deviceAnswer = iota // -> deviceAllowed, deviceDenied
	deviceAllowed
	deviceDenied
)

// A device is a program that waits to be let in.
type device struct {
	UserCode string // of 8 letters without vowels and a hyphen between
	Host     string
	Agent    string // what it says that it is
	Remote   netip.Addr
	Begun    time.Time

	hash     [32]byte // of the code that it asks with
	interval time.Duration
	asked    time.Time // last
	answer   deviceAnswer
	by       coordinator.Session // of who allowed it
}

// devices are the programs that wait, in memory.
type devices struct {
	now func() time.Time

	mu     sync.Mutex
	byUser map[string]*device   // by UserCode
	byCode map[[32]byte]*device // by hash
}

func newDevices(now func() time.Time) *devices {
	return &devices{now: now, byUser: make(map[string]*device), byCode: make(map[[32]byte]*device)}
}

// put keeps d, and fails if too many wait.
func (s *devices) put(d device) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Begun, d.interval = s.now(), deviceInterval
	source, same := coordinator.SourceOf(d.Remote), 0
	for _, other := range s.byUser {
		if d.Begun.Sub(other.Begun) >= deviceLife {
			s.drop(other)
		} else if coordinator.SourceOf(other.Remote) == source {
			same++
		}
	}
	if len(s.byUser) >= maxDevices || same >= sourceDevices || s.byUser[d.UserCode] != nil {
		return false
	}
	s.byUser[d.UserCode], s.byCode[d.hash] = &d, &d
	return true
}

// drop forgets d. The lock is held.
func (s *devices) drop(d *device) {
	delete(s.byUser, d.UserCode)
	delete(s.byCode, d.hash)
}

// find returns the device that waits with that user code.
func (s *devices) find(userCode string) (device, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.byUser[userCode]
	if d == nil || d.answer != deviceWaits || s.now().Sub(d.Begun) >= deviceLife {
		return device{}, false
	}
	return *d, true
}

// settle gives the device that waits with that user code its answer, once.
func (s *devices) settle(userCode string, answer deviceAnswer, by coordinator.Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.byUser[userCode]
	if d == nil || d.answer != deviceWaits || s.now().Sub(d.Begun) >= deviceLife {
		return false
	}
	d.answer, d.by = answer, by
	return true
}

// ask returns the device with that code once it has been allowed, and forgets it.
// Until then, and where it never will be, it fails as RFC 8628, section 3.5, has it.
func (s *devices) ask(deviceCode string) (device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, now := s.byCode[sha256.Sum256([]byte(deviceCode))], s.now()
	if d == nil {
		return device{}, oidc.ErrInvalidGrant().WithDescription("there is no such device_code, or it was used")
	}
	if now.Sub(d.Begun) >= deviceLife {
		s.drop(d)
		return device{}, oidc.ErrExpiredDeviceCode()
	}
	early := now.Sub(d.asked) < d.interval
	d.asked = now
	switch {
	case early:
		d.interval += deviceInterval
		return device{}, oidc.ErrSlowDown()
	case d.answer == deviceWaits:
		return device{}, oidc.ErrAuthorizationPending()
	}
	s.drop(d)
	if d.answer == deviceDenied {
		return device{}, oidc.ErrAccessDenied()
	}
	return *d, nil
}

// DeviceAuthorization implements op.Server. The host that the program wants to
// speak to is its resource (RFC 8707), or the scope host:HOST.
func (v *provider) DeviceAuthorization(ctx context.Context, r *op.ClientRequest[oidc.DeviceAuthorizationRequest]) (*op.Response, error) {
	a := askerOf(ctx)
	host := hostAsked(r.Form.Get("resource"), r.Data.Scopes)
	origin, ok := v.p.c.Client(host)
	if resource := r.Form.Get("resource"); !ok || resource != "" && strings.TrimSuffix(resource, "/") != origin {
		v.note(ctx, a, "token.refused", "", host, "there is no such host")
		return nil, oidc.ErrInvalidTarget().WithDescription("there is no such host, or nobody signs in there")
	}
	deviceCode, err := op.NewDeviceCode(32)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	userCode, err := op.NewUserCode([]rune(op.CharSetBase20), 8, 4)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	agent := r.Header.Get("User-Agent")
	d := device{
		UserCode: userCode, Host: host, Agent: agent[:min(len(agent), maxAgent)], Remote: a.remote, hash: sha256.Sum256([]byte(deviceCode)),
	}
	if !v.devices.put(d) {
		v.note(ctx, a, "token.refused", v.p.c.TenantAt(host), host, "too many programs wait to be let in")
		return nil, op.NewStatusError(&oidc.Error{ErrorType: "temporarily_unavailable", Description: "too many programs wait to be let in"}, http.StatusServiceUnavailable)
	}
	at := v.issuer + pathUserCode
	return op.NewResponse(&oidc.DeviceAuthorizationResponse{
		DeviceCode: deviceCode, UserCode: userCode, VerificationURI: at, VerificationURIComplete: at + "?user_code=" + userCode,
		ExpiresIn: int(deviceLife / time.Second), Interval: int(deviceInterval / time.Second),
	}), nil
}

// hostAsked returns the host that a program asks for, "" if that is not one.
func hostAsked(resource string, scopes []string) string {
	if resource != "" {
		return hostIn(resource)
	}
	for _, scope := range scopes {
		if host, ok := strings.CutPrefix(scope, "host:"); ok {
			return host
		}
	}
	return ""
}

// DeviceToken implements op.Server: the program asks whether it was let in.
func (v *provider) DeviceToken(ctx context.Context, r *op.ClientRequest[oidc.DeviceAccessTokenRequest]) (*op.Response, error) {
	a := askerOf(ctx)
	d, err := v.devices.ask(r.Data.DeviceCode)
	if err != nil {
		return nil, err
	}
	refuse := func(why string) error {
		v.note(ctx, a, "token.refused", v.p.c.TenantAt(d.Host), d.Host, why)
		return oidc.ErrAccessDenied().WithDescription("%s", why)
	}
	// What holds when it is let in counts, not what held when somebody said so.
	s, err := v.stand(ctx, d.by.ID, d.Host)
	if why := gone(err); why != "" {
		return nil, refuse(why)
	}
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	origin, err := v.originOf(d.Host)
	if err != nil {
		return nil, err
	}
	secret, session, err := v.p.c.StartSession(ctx, coordinator.SignIn{
		User: s.user.ID, Methods: d.by.Methods, Device: true, Agent: d.Agent, Remote: d.Remote,
	})
	if problem := problemIn(err); problem != nil {
		return nil, refuse(problem.Detail)
	}
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	s.session = session
	access, err := v.access(s, origin, d.Host)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	return v.letIn(ctx, s, access, d.Host, secret)
}

// originOf returns the origin of host, if people sign in there.
func (v *provider) originOf(host string) (string, error) {
	origin, ok := v.p.c.Client(host)
	if !ok {
		return "", oidc.ErrInvalidTarget().WithDescription("nobody signs in there any more")
	}
	return origin, nil
}

// access returns an access token for host, which has that origin.
func (v *provider) access(s standing, origin, host string) (string, error) {
	c := s.claims(origin).bare()
	c.ClientID, c.Scope, c.ID = ProgramClient, "host:"+host, postern.NewID()
	return v.sign(typeAccess, c, accessLife)
}

// letIn answers with an access token for host, and a refresh token that has the
// session's secret in it.
func (v *provider) letIn(ctx context.Context, s standing, access, host, secret string) (*op.Response, error) {
	left := s.session.Expires.Sub(v.p.cfg.Now())
	refresh, err := v.sign(typeRefresh, claims{
		Subject: s.user.ID, Audience: v.issuer, SID: s.session.ID, ClientID: ProgramClient, Host: host, Secret: secret,
	}, left)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	return op.NewResponse(&oidc.AccessTokenResponse{
		AccessToken: access, TokenType: oidc.BearerToken, ExpiresIn: uint64(accessLife / time.Second),
		RefreshToken: refresh, Scope: oidc.SpaceDelimitedArray{"host:" + host},
	}), nil
}

// RefreshToken implements op.Server. Each refresh token is good once (RFC 9700,
// section 4.14.2): one that comes back has been stolen, by one of the two who had
// it, and ends the session. So all that can fail is done before it is used up.
func (v *provider) RefreshToken(ctx context.Context, r *op.ClientRequest[oidc.RefreshTokenRequest]) (*op.Response, error) {
	a := askerOf(ctx)
	refuse := func(host, why string) error {
		v.note(ctx, a, "token.refused", v.p.c.TenantAt(host), host, why)
		return oidc.ErrInvalidGrant().WithDescription("%s", why)
	}
	c, err := v.verify(typeRefresh, r.Data.RefreshToken)
	if err != nil {
		return nil, refuse("", "the refresh token is not good")
	}
	if asked := hostAsked(r.Form.Get("resource"), r.Data.Scopes); asked != "" && asked != c.Host {
		return nil, oidc.ErrInvalidTarget().WithDescription("the user allowed another host")
	}
	s, err := v.stand(ctx, c.SID, c.Host)
	if why := gone(err); why != "" {
		return nil, refuse(c.Host, why)
	}
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	origin, err := v.originOf(c.Host)
	if err != nil {
		return nil, err
	}
	access, err := v.access(s, origin, c.Host)
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	secret, _, _, err := v.p.c.RenewSession(ctx, c.Secret)
	if errors.Is(err, coordinator.ErrNotFound) {
		if err := v.p.c.EndSession(ctx, a.actor, c.Subject, c.SID); err != nil && problemIn(err) == nil {
			return nil, v.fail(ctx, err)
		}
		return nil, refuse(c.Host, "the refresh token was used before; its session has ended")
	}
	if err != nil {
		return nil, v.fail(ctx, err)
	}
	return v.letIn(ctx, s, access, c.Host, secret)
}

// Revocation implements op.Server (RFC 7009): a program's user signs out with it.
// What is no refresh token that is good needs no revoking.
func (v *provider) Revocation(ctx context.Context, r *op.ClientRequest[oidc.RevocationRequest]) (*op.Response, error) {
	c, err := v.verify(typeRefresh, r.Data.Token)
	if err == nil {
		_, err = v.stand(ctx, c.SID, c.Host)
		if gone(err) == "" {
			err = v.p.c.EndSession(ctx, coordinator.ActorUser(c.Subject), c.Subject, c.SID)
		}
		if err != nil && gone(err) == "" {
			return nil, v.fail(ctx, err)
		}
	}
	return op.NewResponse(nil), nil
}
