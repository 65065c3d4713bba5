package coordinator

import (
	"crypto/x509"
	"fmt"
	"net/url"

	"postern"
)

// maxIssuers bounds the authorities that nodes are told of.
const maxIssuers = 8

// checkACME reports what is wrong with what nodes are to be told of public authorities.
func checkACME(a *postern.ACME) error {
	if a == nil {
		return nil
	}
	if n := len(a.Issuers); n == 0 || n > maxIssuers {
		return fmt.Errorf("%d certificate authorities: want 1 to %d", n, maxIssuers)
	}
	for _, i := range a.Issuers {
		// RFC 8555, section 6.1: HTTPS is a MUST.
		if u, err := url.Parse(i.Directory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return fmt.Errorf("ACME directory %q is no https URL", i.Directory)
		}
		if len(i.Roots) > 0 && !x509.NewCertPool().AppendCertsFromPEM(i.Roots) {
			return fmt.Errorf("roots of ACME directory %q hold no certificate", i.Directory)
		}
	}
	return nil
}
