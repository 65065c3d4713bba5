package coordinator

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"

	"postern"
)

// A door decides by server name who is spoken to on the control port: members
// and operators, or, at the portal's host name, people. The two have nothing in
// common but the port: neither a certificate, nor a request. The portal's is also where
// a certificate authority asks whose that name is; nobody does at the control names.
type door struct {
	c       *Coordinator
	control http.Handler
	portal  http.Handler // nil: there is none
}

func (c *Coordinator) newDoor(site Site) *door {
	d := &door{c: c, control: c.controlHandler(site)}
	if site != nil {
		d.portal = site
	}
	return d
}

// tlsConfig returns the port's settings, with protos for members. The client's
// certificate is asked for and not verified: who enrols has none yet, and
// authenticate verifies it with other rules than crypto/tls has. At the portal
// nobody is asked for one, as browsers would ask their user.
func (d *door) tlsConfig(protos ...string) *tls.Config {
	portal := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, _, err := d.c.portal.get()
			return cert, err
		},
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		ClientAuth: tls.RequestClientCert,
		ClientCAs:  d.c.roots, // a hint, so that browsers do not offer their user's others
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return d.c.cfg.Authority.ServerCertificate()
		},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			switch {
			case !d.isPortal(hello.ServerName):
				return nil, nil
			case slices.Equal(hello.SupportedProtos, []string{postern.ACMEProtocol}):
				return d.c.portal.challenge()
			}
			return portal, nil
		},
	}
}

func (d *door) isPortal(name string) bool { return d.portal != nil && name == d.c.cfg.PortalHost }

// ServeHTTP implements http.Handler.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked, shown := d.isPortal(hostOf(r)), d.isPortal(r.TLS.ServerName)
	switch {
	case asked != shown:
		// RFC 9110, section 15.5.20: a browser takes another connection then.
		writeProblem(w, postern.NewProblem(http.StatusMisdirectedRequest, postern.CodeInvalid,
			fmt.Sprintf("host %q is not what this connection is to", r.Host), ""))
	case shown:
		if _, source, err := d.c.portal.get(); err == nil && source != postern.SourcePrivate {
			// Not with the private CA's: who tried a deployment out for a day
			// could not reach the name for a year.
			w.Header().Set("Strict-Transport-Security", "max-age=31536000")
		}
		d.portal.ServeHTTP(w, r)
	default:
		d.control.ServeHTTP(w, r)
	}
}

// Recognize tells the coordinator, for a Site, that the connection that r came
// over is a user's who signed in: it does not have to make room for strangers.
func Recognize(r *http.Request, user string) {
	if v, ok := r.Context().Value(visitorKey{}).(*visitor); ok {
		v.known(ActorUser(user))
	}
}

// hostOf returns the host that r is for, without its port.
func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}
