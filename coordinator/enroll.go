package coordinator

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"postern"
	"postern/internal/identity"
)

// maxEnrollBody bounds a request to join, in bytes.
const maxEnrollBody = 64 << 10

// An enrollment is a request to join, with its proofs.
type enrollment struct {
	postern.EnrollRequest
	message   []byte // that the proofs are over, postern.EnrollMessage
	token     []byte // Ed25519 signature by the token's key
	identity  []byte // Ed25519 signature by the identity's
	wireguard []byte // HMAC keyed with the secret shared with the challenge
}

func (c *Coordinator) getEnroll(r *http.Request) (any, error) {
	b, err := binding(r)
	if err != nil {
		return nil, err
	}
	return postern.Challenge{WireGuard: c.challenge(b).Public()}, nil
}

func (c *Coordinator) postEnroll(r *http.Request) (any, error) {
	if !c.limits.source.allow(SourceOf(remoteOf(r))) {
		return nil, tooMany()
	}
	e, token, err := c.readEnrollment(r)
	if err == nil && e.Role == postern.RoleGateway && visitorOf(r).piped {
		// Its edge pipes would end in another gateway's, or in its own.
		err = forbidden("a gateway has to reach the coordinator itself, not through another gateway",
			"postern gateway join --coordinator https://HOST:PORT, where the coordinator listens")
	}
	actor := ActorStranger
	if err == nil {
		var m Member
		actor = actorToken(token.ID) // proven by its signature
		err = c.update(r.Context(), actor, func(ch *change) (err error) {
			m, err = ch.enroll(e)
			return err
		})
		if err == nil {
			log := c.log.With(string(m.Role), m.Name, "remote", r.RemoteAddr)
			if m.Tenant != "" {
				log = log.With("tenant", m.Tenant)
			}
			log.Info("member joined")
			return c.enrolled(&m)
		}
	}
	p := c.Problem(r.Context(), err)
	if p.Status < http.StatusInternalServerError {
		c.refused(r.Context(), actor, "enroll.refused", token.Tenant, e.Token.String(), remoteOf(r), p)
	}
	return nil, p
}

// readEnrollment returns a request to join whose proofs are right, and its token.
func (c *Coordinator) readEnrollment(r *http.Request) (*enrollment, Token, error) {
	e := new(enrollment)
	r.Body = http.MaxBytesReader(nil, r.Body, maxEnrollBody)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return e, Token{}, fmt.Errorf("read the request's body: %w", err)
	}
	if err := json.Unmarshal(body, &e.EnrollRequest); err != nil {
		return e, Token{}, invalid(fmt.Errorf("the request's body is not what it should be: %w", err), "")
	}
	if err := e.parse(r.Header); err != nil {
		return e, Token{}, invalid(err, "")
	}
	if !c.limits.token.allow(e.Token) {
		return e, Token{}, tooMany()
	}
	var token Token
	err = c.cfg.Store.View(r.Context(), func(tx Tx) (err error) {
		token, err = tx.Tokens().Get(e.Token)
		return err
	})
	if err != nil {
		return e, Token{}, unknownToken(err)
	}
	b, err := binding(r)
	if err != nil {
		return e, Token{}, err
	}
	e.message = postern.EnrollMessage(b, body)
	if err := e.prove(token.Public, c.challenge(b)); err != nil {
		return e, Token{}, err
	}
	return e, token, nil
}

// challenge returns the ephemeral key for the connection with that binding. It
// follows from the binding, so nothing is kept between challenge and proof.
func (c *Coordinator) challenge(binding []byte) postern.WireGuardPrivate {
	mac := hmac.New(sha256.New, c.secret[:])
	mac.Write(binding)
	return postern.WireGuardPrivate(mac.Sum(nil))
}

// parse fills e's proofs from the request's headers and checks its form.
func (e *enrollment) parse(h http.Header) error {
	for name, proof := range map[string]*[]byte{
		postern.HeaderTokenSignature:    &e.token,
		postern.HeaderIdentitySignature: &e.identity,
		postern.HeaderWireGuardProof:    &e.wireguard,
	} {
		var err error
		if *proof, err = base64.StdEncoding.DecodeString(h.Get(name)); err != nil || len(*proof) == 0 {
			return fmt.Errorf("header %s is missing or not base64", name)
		}
	}
	if e.Role != postern.RoleNode && e.Role != postern.RoleGateway {
		return fmt.Errorf("nobody joins as %q", e.Role)
	}
	if e.Identity.IsZero() || e.WireGuard.IsZero() {
		return errors.New("the identity or the WireGuard key is missing")
	}
	if e.Name != "" {
		if err := postern.CheckLabel(string(e.Role), e.Name); err != nil {
			return err
		}
	}
	for what, text := range map[string]string{
		"host name": e.Host.Name, "operating system": e.Host.OS, "architecture": e.Host.Arch, "version": e.Host.Version,
	} {
		if err := checkText(what, text); err != nil {
			return err
		}
	}
	return nil
}

// prove checks e's proofs. Both keys must be the asker's own: who could register
// another's WireGuard key would take over its tunnel.
func (e *enrollment) prove(token postern.IdentityPublic, challenge postern.WireGuardPrivate) error {
	if !ed25519.Verify(token.Key(), e.message, e.token) {
		return wrongProof("the token's signature is wrong", "check that the token is the one that was issued, or ask for a new one")
	}
	if !ed25519.Verify(e.Identity.Key(), e.message, e.identity) {
		return wrongProof("the identity's signature is wrong", freshProof)
	}
	return proveWireGuard(e.WireGuard, challenge, e.message, e.wireguard)
}

// proveWireGuard checks the proof over message that its sender has the private half of
// key; challenge is the connection's.
func proveWireGuard(key postern.WireGuardPublic, challenge postern.WireGuardPrivate, message, proof []byte) error {
	shared, err := challenge.Shared(key)
	if err != nil {
		return wrongProof("the WireGuard key is not usable: "+err.Error(), "make a new key")
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write(message)
	if !hmac.Equal(mac.Sum(nil), proof) {
		return wrongProof("the proof of the WireGuard key is wrong", freshProof)
	}
	return nil
}

const freshProof = "get the challenge and give the proof over one and the same connection"

func wrongProof(detail, hint string) error {
	return postern.NewProblem(http.StatusUnauthorized, postern.CodeProof, detail, hint)
}

// enroll makes e's sender a member. The same identity with the same token is
// the same member again, so an answer that was lost costs nothing.
func (ch *change) enroll(e *enrollment) (Member, error) {
	token, err := ch.Tokens().Get(e.Token)
	if err != nil {
		return Member{}, unknownToken(err)
	}
	m, err := ch.Members().ByIdentity(e.Identity)
	if err == nil {
		if m.Token == e.Token && m.WireGuard == e.WireGuard && m.Role == e.Role {
			return m, nil
		}
		return Member{}, taken("another member has this identity", "join with an empty data directory")
	}
	if !errors.Is(err, ErrNotFound) {
		return Member{}, err
	}
	if err := ch.checkJoin(e, &token); err != nil {
		return Member{}, err
	}
	m = Member{
		ID: postern.NewID(), Role: e.Role, Tenant: token.Tenant,
		Identity: e.Identity, WireGuard: e.WireGuard, Token: e.Token, Host: e.Host, Joined: ch.now,
	}
	if m.Name, err = ch.nameFor(e, token.Tenant); err != nil {
		return Member{}, err
	}
	if err := ch.allocate(&m); err != nil {
		return Member{}, err
	}
	token.Uses--
	ch.touch(m.Tenant)
	return m, errors.Join(
		ch.Tokens().Put(token),
		ch.Members().Put(m),
		ch.audit(string(m.Role)+".join", m.Tenant, m.ID, fmt.Sprintf("%s at %v with token %v", m.Name, m.Address, token.ID)),
	)
}

func unknownToken(err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return postern.NewProblem(http.StatusUnauthorized, postern.CodeTokenUnknown,
		"this deployment never issued that token, or has forgotten it", "ask the operator for a new token")
}

// checkJoin reports why token does not let e's sender in.
func (ch *change) checkJoin(e *enrollment, token *Token) error {
	const again = "ask the operator for a new token"
	gone := func(code, detail string) error {
		return postern.NewProblem(http.StatusGone, code, detail, again)
	}
	if token.Kind != postern.JoinToken || token.Role != e.Role {
		return forbidden(fmt.Sprintf("the token does not let a %s join", e.Role), again)
	}
	if _, err := ch.Removed().Get(e.Identity); err == nil {
		return postern.NewProblem(http.StatusForbidden, postern.CodeRevoked,
			"this member was removed", "join with an empty data directory")
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	switch token.state(ch.now) {
	case tokenRevoked:
		return gone(postern.CodeTokenRevoked, "the token was revoked")
	case tokenUsed:
		return postern.NewProblem(http.StatusConflict, postern.CodeTokenUsed, "the token was used already", again)
	case tokenExpired:
		return gone(postern.CodeTokenExpired, "the token has expired")
	}
	if _, err := ch.Members().ByWireGuard(e.WireGuard); err == nil {
		return taken("another member has this WireGuard key", "join with an empty data directory")
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

// nameFor returns the name that e wishes, or one made from its host name.
func (ch *change) nameFor(e *enrollment, tenant string) (string, error) {
	others, err := ch.Members().In(tenant)
	if err != nil {
		return "", err
	}
	names := make(map[string]bool, len(others))
	for _, m := range others {
		names[m.Name] = true
	}
	if e.Name != "" {
		if names[e.Name] {
			return "", taken(fmt.Sprintf("there is a %s %q already", e.Role, e.Name),
				"choose another name, or remove the one that has it")
		}
		return e.Name, nil
	}
	stem := labelFrom(e.Host.Name)
	if stem == "" {
		stem = string(e.Role)
	}
	name := stem
	for n := 2; names[name]; n++ {
		suffix := fmt.Sprintf("-%d", n)
		name = strings.TrimRight(stem[:min(len(stem), 63-len(suffix))], "-") + suffix
	}
	return name, nil
}

// labelFrom makes a label of what a machine is called, "" if nothing is left of it.
func labelFrom(host string) string {
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, host)
	for strings.Contains(label, "--") {
		label = strings.ReplaceAll(label, "--", "-")
	}
	label = strings.Trim(label, "-")
	return strings.TrimRight(label[:min(len(label), 63)], "-")
}

// allocate gives m the next address of its kind.
func (ch *change) allocate(m *Member) error {
	d, err := ch.Deployment()
	if err != nil {
		return err
	}
	if m.Role == postern.RoleGateway {
		m.Address = gatewayAddress(d.Prefix, d.NextGateway)
		d.NextGateway++
		return ch.PutDeployment(d)
	}
	t, err := ch.Tenants().Get(m.Tenant)
	if err != nil {
		return err
	}
	m.Address = nodeAddress(d.Prefix, t.Number, t.NextNode)
	t.NextNode++
	return ch.Tenants().Put(t)
}

// enrolled returns the answer to m: who it is, with a certificate to show for it.
func (c *Coordinator) enrolled(m *Member) (postern.Enrollment, error) {
	id := c.cfg.Authority.Deployment()
	cert, err := c.cfg.Authority.IssueMember(identity.Name{Deployment: id, Role: m.Role, ID: m.ID}, m.Identity)
	return postern.Enrollment{
		Deployment: id, ID: m.ID, Name: m.Name, Tenant: m.Tenant, Address: m.Address, Certificate: cert,
	}, err
}
