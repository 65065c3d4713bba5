package coordinator

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"

	"postern"
)

// checkACME reports what is wrong with what nodes are to be told of public authorities.
func checkACME(a *postern.ACME) error {
	if a == nil {
		return nil
	}
	if len(a.Issuers) == 0 {
		return errors.New("certificates of public authorities without an authority")
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
