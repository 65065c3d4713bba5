package node

import "time"

// A source is from where the certificates of host names come. Its methods are safe for
// concurrent use and wait for nothing but a disk.
type source interface {
	// get returns what browsers are to be shown at host.
	get(host string, now time.Time) (*certificate, error)

	// describe fills in what a status tells of host's certificate, besides what the
	// certificate itself does.
	describe(host string, st *Certificate, now time.Time)
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
	return n.source(host, svc).get(host, time.Now())
}

// describe implements source.
func (p *pemFiles) describe(_ string, st *Certificate, now time.Time) {
	st.Source = SourceFile
	if err := p.lastError(now); err != nil {
		st.Error = err.Error()
	}
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
