package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"postern"
	"postern/internal/acme"
)

// A portalAuthority gets the portal's own certificate from public authorities. It
// implements coordinator.PortalCertificates.
type portalAuthority struct {
	manager *acme.Manager
	issuers []acme.Issuer
}

// gatewayPatience is how long an authority is kept waiting for a gateway by which it can
// come.
const gatewayPatience = time.Minute

// newPortalAuthority returns the one that asks the authorities of a, once await says that
// they can come, and keeps its account, key and certificate in dir.
func newPortalAuthority(dir string, a *postern.ACME, o certificateOptions, await func(context.Context) error, log *slog.Logger) (*portalAuthority, error) {
	m, err := acme.New(acme.Config{Dir: dir, Logger: log, Await: func(ctx context.Context, _ string) error {
		ctx, cancel := context.WithTimeout(ctx, gatewayPatience)
		defer cancel()
		return await(ctx)
	}})
	if err != nil {
		return nil, err
	}
	p := &portalAuthority{manager: m}
	for i, is := range a.Issuers {
		issuer := acme.Issuer{ACMEIssuer: is, Email: a.Email}
		if i == 0 {
			issuer.KeyID, issuer.HMAC = o.keyID, o.hmac
		}
		p.issuers = append(p.issuers, issuer)
	}
	return p, nil
}

// want makes host the name to get a certificate for.
func (p *portalAuthority) want(host string) { p.manager.Want([]string{host}, p.issuers) }

// Run gets and renews the certificate until ctx is done.
func (p *portalAuthority) Run(ctx context.Context) error { return p.manager.Run(ctx) }

// Get returns the certificate to show.
func (p *portalAuthority) Get(host string) (*tls.Certificate, error) { return p.manager.Get(host) }

// Challenge returns what an authority is shown that asks whose host is.
func (p *portalAuthority) Challenge(host string) (*tls.Certificate, bool) {
	return p.manager.Challenge(host)
}

// Status says how it stands.
func (p *portalAuthority) Status(host string) postern.HostStatus {
	st := p.manager.State(host)
	out := postern.HostStatus{Host: host, Source: postern.SourceACME, Renewal: st.Renewal, Account: st.Account, Error: st.Waiting}
	if st.Err != nil {
		out.Error = st.Err.Error()
	}
	return out
}
