package node

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"postern"
	"postern/internal/acme"
	"postern/internal/dnscheck"
)

// public are the certificates of public authorities. Its methods are safe for
// concurrent use.
type public struct {
	manager *acme.Manager

	mu      sync.Mutex
	own     []acme.Issuer // the node's; empty: the deployment's count
	told    []acme.Issuer // the deployment's
	hosts   []string
	wrapped map[string]*certificate // by host: what the manager gave last
}

// newPublic returns those kept in dir. client tells the coordinator where authorities'
// handshakes are awaited; changed is called after a certificate or its state changed.
func newPublic(dir string, challenge func(context.Context, postern.ChallengeRequest) error, changed func(), log *slog.Logger) (*public, error) {
	p := &public{wrapped: map[string]*certificate{}}
	var err error
	p.manager, err = acme.New(acme.Config{
		Dir: dir, Changed: changed, Logger: log,
		Await: func(ctx context.Context, host string) error {
			for {
				err := challenge(ctx, postern.ChallengeRequest{Host: host})
				var p *postern.Problem
				if !errors.As(err, &p) || p.Code != postern.CodeUnavailable {
					return err
				}
				select { // another node of the route is getting its own
				case <-time.After(turnInterval):
				case <-ctx.Done():
					return err
				}
			}
		},
		Settled: func(host string) {
			ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
			defer cancel()
			if err := challenge(ctx, postern.ChallengeRequest{Host: host, Done: true}); err != nil {
				log.Debug("tell the coordinator that no authority is awaited", "server_name", host, "err", err)
			}
		},
	})
	return p, err
}

// turnInterval is how long to wait after another node was found to be getting its own.
const turnInterval = time.Second

// settleTimeout bounds what the coordinator is told afterwards: it forgets by itself.
const settleTimeout = 5 * time.Second

// setOwn makes issuers count in place of the deployment's, if there are any.
func (p *public) setOwn(issuers []acme.Issuer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = issuers
	p.manager.Want(p.hosts, p.issuers())
}

// offer notes what authorities the deployment names; nil: none.
func (p *public) offer(d *postern.ACME) {
	var issuers []acme.Issuer
	if d != nil {
		for _, i := range d.Issuers {
			issuers = append(issuers, acme.Issuer{ACMEIssuer: i, Email: d.Email})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = issuers
}

// issuers returns those that count. The lock is held.
func (p *public) issuers() []acme.Issuer {
	if len(p.own) > 0 {
		return p.own
	}
	return p.told
}

// offered reports whether there is an authority to ask.
func (p *public) offered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.issuers()) > 0
}

// want makes hosts the names to keep certificates for.
func (p *public) want(hosts []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hosts = hosts
	for host := range p.wrapped {
		if !slices.Contains(hosts, host) {
			delete(p.wrapped, host)
		}
	}
	p.manager.Want(hosts, p.issuers())
}

// get implements source.
func (p *public) get(host string, _ time.Time) (*certificate, error) {
	cert, err := p.manager.Get(host)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.wrapped[host]
	if held == nil || held.Leaf != cert.Leaf {
		held = newCertificate(*cert, SourceACME)
		p.wrapped[host] = held
	}
	return held, nil
}

// challenge returns what an authority is to be shown that looks whether host is ours
// (RFC 8737), nil if none is expected.
func (p *public) challenge(host string) *tls.Certificate {
	cert, _ := p.manager.Challenge(host)
	return cert
}

// describe implements source.
func (p *public) describe(host string, st *Certificate, _ time.Time) {
	state := p.manager.State(host)
	st.Source, st.Renewal, st.Waiting, st.Account = SourceACME, state.Renewal, state.Waiting, state.Account
	if state.Err != nil {
		st.Error = state.Err.Error()
	}
	for _, a := range p.manager.Accounts() {
		if st.Account == "" {
			st.Account = a.URI
		}
		if a.URI == st.Account {
			st.Authorities = a.CAA
		}
		for _, name := range a.CAA {
			st.Records = append(st.Records, recordLine(dnscheck.Record(host, name, a.URI)))
		}
	}
	if len(st.Records) > 0 {
		st.Records = append(st.Records, recordLine(dnscheck.NoWildcards(host)))
	}
}

// recordLine returns r as in a zone file.
func recordLine(r postern.DNSRecord) string { return r.Name + ". " + r.Type + " " + r.Value }

// renew implements source.
func (p *public) renew(host string) error { return p.manager.Renew(host) }
