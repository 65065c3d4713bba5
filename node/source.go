package node

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"postern"
)

// A source is from where the certificates of host names come. Its methods are safe for
// concurrent use and wait for nothing but a disk.
type source interface {
	// get returns what browsers are to be shown at host.
	get(host string, now time.Time) (*certificate, error)

	// describe fills in what a status tells of host's certificate, besides what the
	// certificate itself does.
	describe(host string, st *Certificate, now time.Time)

	// renew has a new certificate got for host now, even if that is not due, and does
	// not wait for it.
	renew(host string) error
}

// source returns from where the certificate of host comes, which leads to svc; nil if
// that is no service of ours.
func (n *Node) source(host string, svc *service) source {
	kind, files := "", (*pemFiles)(nil)
	if svc != nil {
		kind, files = svc.sourceOf(host)
	}
	switch {
	case files != nil:
		return files
	case kind == SourceCA, kind == "" && !n.public.offered():
		return n.issuer
	}
	return n.public
}

// certificate returns what browsers are to be shown at host, one of our routes'.
func (n *Node) certificate(host string) (*certificate, error) {
	svc, ours := n.server.service(host)
	if !ours {
		return nil, errNotOurs
	}
	return n.shown(n.source(host, svc), host, time.Now())
}

// shown returns what browsers are to be shown at host, whose source is src. A
// certificate of the operator's own that covers too much is refused.
func (n *Node) shown(src source, host string, now time.Time) (*certificate, error) {
	cert, err := src.get(host, now)
	if err == nil && cert.source == SourceFile {
		err = n.server.table.Load().exclusive(cert)
	}
	if err != nil {
		return nil, err
	}
	return cert, nil
}

// exclusive refuses a certificate that covers hosts of two services, or all names right
// below the deployment's domain, which are other tenants'. A browser that has a connection
// for one name takes it for every name that its certificate covers (RFC 9113, section
// 9.1.1), so that one service would be asked for the other's pages.
func (t *table) exclusive(cert *certificate) error {
	if held, ok := t.judged.Load(cert); ok {
		err, _ := held.(error)
		return err
	}
	err := t.judge(cert.Leaf)
	t.judged.Store(cert, err)
	return err
}

func (t *table) judge(leaf *x509.Certificate) error {
	if t.base != "" && slices.Contains(leaf.DNSNames, "*."+t.base) {
		return fmt.Errorf("the certificate is for *.%s, which are all tenants' names: want one for this service's names alone", t.base)
	}
	first := ""
	for _, host := range slices.Sorted(maps.Keys(t.hosts)) {
		switch {
		case leaf.VerifyHostname(host) != nil:
		case first == "":
			first = host
		case t.hosts[host] != t.hosts[first]:
			return fmt.Errorf("the certificate is for %s and for %s, which lead to two services: browsers would take them for one; want a certificate for each", first, host)
		}
	}
	return nil
}

// describe implements source.
func (p *pemFiles) describe(_ string, st *Certificate, now time.Time) {
	st.Source = SourceFile
	if err := p.lastError(now); err != nil {
		st.Error = err.Error()
	}
}

// renew implements source.
func (p *pemFiles) renew(string) error {
	return fmt.Errorf("its certificate is yours: replace %s and %s, which are read again within seconds", p.certFile, p.keyFile)
}

// describe implements source.
func (i *issuer) describe(host string, st *Certificate, now time.Time) {
	st.Source = SourceCA
	if cert, err := i.get(host, now); err == nil {
		st.Renewal = cert.renewal()
	}
	if err := i.lastError(host); err != nil {
		st.Error = err.Error()
	}
}

// renew implements source.
func (i *issuer) renew(host string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	st := i.hosts[host]
	if st == nil {
		return errNoCertificate
	}
	st.forced, st.next, st.failures = true, time.Time{}, 0
	wake(i.poke)
	return nil
}

// renewCertificate is the local API's.
func (n *Node) renewCertificate(w http.ResponseWriter, r *http.Request) {
	host := r.PathValue("host")
	svc, ours := n.server.service(host)
	if !ours {
		refuse(w, postern.NewProblem(http.StatusNotFound, postern.CodeNotFound,
			fmt.Sprintf("no route leads from %q to this node", host), "`postern node status` shows its addresses"))
		return
	}
	if err := n.source(host, svc).renew(host); err != nil {
		refuse(w, postern.NewProblem(http.StatusConflict, postern.CodeUnavailable, err.Error(), ""))
		return
	}
	n.log.Info("certificate to be renewed by the local API", "server_name", host)
	writeJSON(w, http.StatusOK, n.routeStatus(host))
}

// routeStatus returns how host does, the zero Route if it is not ours.
func (n *Node) routeStatus(host string) Route {
	for _, r := range n.Status().Routes {
		if r.Host == host {
			return r
		}
	}
	return Route{}
}

// RenewCertificate asks the node whose Socket has the given path to get a new
// certificate for host, and returns how the route does at that moment. It fails with
// ErrNotRunning if there is none; what it refuses is a *postern.Problem.
func RenewCertificate(ctx context.Context, socket, host string) (r Route, err error) {
	err = askLocal(ctx, socket, http.MethodPost, pathCertificates+"/"+url.PathEscape(host)+"/renew", nil, &r)
	return r, err
}
