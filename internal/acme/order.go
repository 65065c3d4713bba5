package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// An order is one attempt to get a certificate for one host from one issuer (RFC 8555,
// section 7.4).
type order struct {
	m         *Manager
	host      string
	issuer    Issuer
	authority *authority
	held      *tls.Certificate // nil: none
	from      origin           // of held
	early     bool             // it is the authority that wants held to be replaced

	session session
	account acme.Account
}

// place gets the certificate, verified and written. It is not shorter-lived than what
// is held, unless the authority itself wants that to go.
func (o *order) place(ctx context.Context) (*tls.Certificate, origin, error) {
	cert, err := o.attempt(ctx)
	if isRefusal(err, accountDoesNotExist) {
		// It lost us: with the same key, we are soon back.
		o.authority.forget(o.account.Location)
		cert, err = o.attempt(ctx)
	}
	return cert, origin{o.issuer.Directory, o.account.Location}, err
}

func (o *order) attempt(ctx context.Context) (cert *tls.Certificate, err error) {
	o.m.step(o.host, "account at "+o.authority.name)
	if o.session, o.account, err = o.authority.account(ctx); err != nil {
		return nil, err
	}
	ctx, n := withNote(ctx)
	cert, err = o.talk(ctx)
	if err != nil && n.wait > 0 {
		err = &pause{err: err, until: o.m.cfg.clock().Add(min(n.wait, maxAsked)), asked: true}
	}
	return cert, err
}

func (o *order) talk(ctx context.Context) (*tls.Certificate, error) {
	key, err := o.m.store.key(o.m.store.certificateFile(o.host, ".key"))
	if err != nil {
		return nil, err
	}
	o.m.step(o.host, "order at "+o.authority.name)
	placed, err := o.open(ctx)
	if err != nil {
		return nil, plain(err)
	}
	for _, url := range placed.Authorizations {
		if err := o.authorize(ctx, url); err != nil {
			return nil, plain(err)
		}
	}
	o.m.step(o.host, "certificate from "+o.authority.name)
	chain, err := o.finalize(ctx, placed, key)
	if err != nil {
		return nil, plain(err)
	}
	cert, err := o.judge(chain, key)
	if err != nil {
		return nil, fmt.Errorf("what %s gave is refused: %w", o.authority.name, err)
	}
	if err := o.m.store.save(o.host, chain, origin{o.issuer.Directory, o.account.Location}); err != nil {
		// It serves from memory; the next start asks again.
		o.m.cfg.Logger.Error("keep a certificate on disk", "server_name", o.host, "err", err)
	}
	return cert, nil
}

// open places the order. What it replaces is named if this account got it here (RFC
// 9773, section 5): then limits do not count. Should the authority not have that,
// the order goes without.
func (o *order) open(ctx context.Context) (acme.Order, error) {
	if p := o.issuer.Profile; p != "" {
		// "The client MUST NOT request a profile name that is not advertised"
		// (draft-aaron-acme-profiles, section 4).
		offered := o.session.directory.meta.Profiles
		if _, ok := offered[p]; !ok {
			return acme.Order{}, fmt.Errorf("%s has no profile %q; it offers %s", o.authority.name, p, profiles(offered))
		}
	}
	wish := acme.Order{
		Profile:     o.issuer.Profile,
		Identifiers: []acme.Identifier{{Type: "dns", Value: o.host}},
	}
	if o.held != nil && o.from == (origin{o.issuer.Directory, o.account.Location}) &&
		o.session.directory.renewalInfo != "" && len(o.held.Leaf.AuthorityKeyId) > 0 {
		var err error
		if wish.Replaces, err = acme.ARIUniqueIdentifier(o.held.Leaf); err != nil {
			return acme.Order{}, err
		}
	}
	placed, err := o.session.client.NewOrder(ctx, o.account, wish)
	if refused := plain(err); wish.Replaces != "" && isRefusal(refused) &&
		!isRefusal(refused, rateLimited, accountDoesNotExist) && ctx.Err() == nil {
		o.m.cfg.Logger.Info("order as if for the first time", "server_name", o.host, "authority", o.authority.name, "err", refused)
		wish.Replaces = ""
		placed, err = o.session.client.NewOrder(ctx, o.account, wish)
	}
	if err != nil {
		return acme.Order{}, err
	}
	if placed.Location == "" || placed.Finalize == "" || len(placed.Authorizations) == 0 {
		return acme.Order{}, fmt.Errorf("the order at %s lacks a URL", o.authority.name)
	}
	return placed, nil
}

func profiles(offered map[string]string) string {
	if len(offered) == 0 {
		return "none"
	}
	return clean(strings.Join(slices.Sorted(maps.Keys(offered)), ", "))
}

// authorize proves that host is ours, by TLS-ALPN-01 and nothing else.
func (o *order) authorize(ctx context.Context, url string) error {
	client := o.session.client
	authz, err := client.GetAuthorization(ctx, o.account, url)
	if err != nil {
		return err
	}
	if id := authz.Identifier; authz.Wildcard || id.Type != "dns" || id.Value != o.host {
		return fmt.Errorf("%s wants a proof for %q, and the order is for %q", o.authority.name, clean(authz.IdentifierValue()), o.host)
	}
	if authz.Status == acme.StatusValid {
		return nil // from another time
	}
	i := slices.IndexFunc(authz.Challenges, func(c acme.Challenge) bool { return c.Type == acme.ChallengeTypeTLSALPN01 })
	if i < 0 {
		var offered []string
		for _, c := range authz.Challenges {
			offered = append(offered, c.Type)
		}
		return fmt.Errorf("%s does not offer tls-alpn-01, only %s", o.authority.name, clean(strings.Join(offered, ", ")))
	}
	cert, err := acmez.TLSALPN01ChallengeCert(authz.Challenges[i])
	if err != nil {
		return err
	}
	defer o.m.expect(o.host, cert)()
	o.await(ctx)
	defer o.m.cfg.Settled(o.host)
	o.m.step(o.host, o.authority.name+" to connect")
	if _, err := client.InitiateChallenge(ctx, o.account, authz.Challenges[i]); err != nil {
		return err
	}
	_, err = client.PollAuthorization(ctx, o.account, authz)
	return err
}

func (o *order) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, o.m.cfg.timing.await)
	defer cancel()
	o.m.step(o.host, "handshakes of "+o.authority.name+" to be led here")
	if err := o.m.cfg.Await(ctx, o.host); err != nil {
		o.m.cfg.Logger.Warn("await an authority's handshakes; it may reach another", "server_name", o.host, "err", err)
	}
}

// finalize asks for the certificate and gets its chain.
func (o *order) finalize(ctx context.Context, placed acme.Order, key *ecdsa.PrivateKey) ([]byte, error) {
	client := o.session.client
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{o.host}}, key)
	if err != nil {
		return nil, err
	}
	// The order may be behind its authorizations for a moment.
	for placed.Status != acme.StatusReady && placed.Status != acme.StatusValid {
		if placed, err = client.GetOrder(ctx, o.account, placed); err != nil {
			return nil, err
		}
		if placed.Status == acme.StatusInvalid {
			if placed.Error == nil {
				return nil, fmt.Errorf("the order at %s became invalid", o.authority.name)
			}
			return nil, placed.Error
		}
		if placed.Status == acme.StatusPending {
			if err := wait(ctx, o.m.cfg.timing.poll); err != nil {
				return nil, err
			}
		}
	}
	if placed, err = client.FinalizeOrder(ctx, o.account, placed, csr); err != nil {
		return nil, err
	}
	chains, err := client.GetCertificateChain(ctx, o.account, placed.Certificate)
	if err != nil && len(chains) == 0 {
		return nil, err
	}
	if len(chains) == 0 {
		return nil, errors.New("there is no chain")
	}
	return chains[0].ChainPEM, nil
}

// judge verifies what was given against what was asked for and what is held.
func (o *order) judge(chain []byte, key *ecdsa.PrivateKey) (*tls.Certificate, error) {
	cert, err := parseChain(chain, key)
	if err != nil {
		return nil, err
	}
	if err := verify(cert, o.host); err != nil {
		return nil, err
	}
	now := o.m.cfg.clock()
	if err := fresh(cert.Leaf, now); err != nil {
		return nil, err
	}
	if o.held != nil && !o.early && dates(o.held.Leaf, now) == nil && cert.Leaf.NotAfter.Before(o.held.Leaf.NotAfter) {
		// The next may last longer, once it is made so much later.
		return nil, &pause{
			err: fmt.Errorf("it ends on %s, before what is held, which ends on %s",
				stamp(cert.Leaf.NotAfter), stamp(o.held.Leaf.NotAfter)),
			until: now.Add(o.held.Leaf.NotAfter.Sub(cert.Leaf.NotAfter)),
		}
	}
	return cert, nil
}

// wait waits, or fails with ctx.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
